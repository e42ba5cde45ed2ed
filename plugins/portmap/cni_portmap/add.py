"""ADD: publish the ports."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import host_gateways, select
from cni.firewall.intents import FORWARD
from cni.hostports import ledger, listeners
from cni.kernel import route, sysctl
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni_portmap.delete import flush_connections
from cni_portmap.plan import (
    PURPOSE,
    find_targets,
    list_host_ends,
    plan_forward,
    plan_mappings,
    plan_notes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.intents import PortForward
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_portmap.conf import PortmapConf


def add(conf: PortmapConf, request: Request, undo: Undo) -> Result:
    """Publish the ports, and return prevResult. Raises CniError 103 if a host port is another container's."""
    if request.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "must be called as chained plugin",
            "list portmap behind the plugin that makes the container's interface",
        )
    result = request.prev_result
    for line in plan_notes(plan_mappings(conf), find_targets(result, request.ifname)):
        note(line)
    if intent := plan_forward(conf, request, result):
        intent = host_gateways.without_others(intent)
        with claimed(intent, list_host_ends(result), request, undo):
            select.choose_for_add(conf.needed_backend, PURPOSE).apply(intent, undo)
        flush_connections(intent.mappings)
        # This has no inverse and comes last: a DEL cannot find out whether another container needs it.
        for key in list_localhost_settings(intent):
            sysctl.ensure(key, "1")
        # The port just published makes these processes of the host unreachable.
        for each in listeners.find(intent.mappings, [target.version for target in intent.targets]):
            note(f'portmap: {each}, where container "{request.container_id}" is reached now instead')
    return result


@contextmanager
def claimed(intent: PortForward, host_ends: Sequence[str], request: Request, undo: Undo) -> Iterator[None]:
    """Claim the host ports for the `with` block to publish, and remove rules of containers that are gone.

    `host_ends` are those of `list_host_ends`. Raises CniError 103 if another container holds a host port.
    """
    with ledger.claim(intent.owner, intent.mappings, request.netns, undo, host_ends) as former:
        for dead in former:
            select.remove(dead, FORWARD)
            ledger.forget(dead)
        yield


def list_localhost_settings(intent: PortForward) -> list[str]:
    """Return the sysctls that must be 1 to let 127.0.0.1 through to the container."""
    addresses = [each.ip for each in intent.targets if intent.snat and each.version == 4]
    if not addresses:
        return []
    with Netlink() as nl:
        indices = [route.find_link_index(nl, each) for each in addresses]
    keys = []
    for index in filter(None, indices):
        # The link may be gone by now.
        with suppress(OSError):
            keys.append(f"net/ipv4/conf/{socket.if_indextoname(index)}/route_localnet")
    return keys

"""ADD: publish the ports."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import select
from cni.hostports import listeners
from cni.kernel import route, sysctl
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni_portmap.plan import find_targets, plan_forward, plan_mappings, plan_notes
from cni_portmap.ports import WHAT, claimed, flush_connections

if TYPE_CHECKING:
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
    for line in plan_notes(plan_mappings(conf), find_targets(request.prev_result, request.ifname)):
        note(line)
    if intent := plan_forward(conf, request, request.prev_result):
        backend = select.choose_for_add(conf.needed_backend, WHAT)
        with claimed(intent, request, undo):
            backend.apply(intent, undo)
        flush_connections(intent.mappings)
        # This has no inverse and comes last: a DEL cannot find out whether another container needs it.
        for key in list_localhost_settings(intent):
            sysctl.ensure(key, "1")
        _log_listeners(intent)
    return request.prev_result


def _log_listeners(intent: PortForward) -> None:
    """Log the processes of the host that a port just published makes unreachable."""
    for each in listeners.find(intent.mappings, [target.version for target in intent.targets]):
        note(f'portmap: {each}, where container "{intent.owner.container_id}" is reached now instead')


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

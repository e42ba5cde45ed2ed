"""DEL: withdraw the ports."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cni.errors import CniError, ErrorList
from cni.firewall import select
from cni.firewall.intents import FORWARD
from cni.hostports import ledger
from cni.log import note
from cni_portmap.plan import plan_mappings, plan_owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.intents import Owner, PortMapping
    from cni.request import Request
    from cni.result import IpAddress
    from cni_portmap.conf import PortmapConf


def delete(conf: PortmapConf, request: Request) -> None:
    """Withdraw all ports of the attachment; its network, container ID and ifname are enough."""
    ips = request.prev_result.ips if request.prev_result else ()
    remove_published(plan_owner(conf, request), plan_mappings(conf), [each.address.ip for each in ips])


def remove_published(
    owner: Owner, mappings: Sequence[PortMapping] = (), addresses: Sequence[IpAddress] = ()
) -> None:
    """Withdraw all ports of `owner`, whatever published them; `mappings` are those that the runtime names.

    `addresses` are those of `select.remove`. The claims go last: a port whose rules remain must not be given
    to another container.
    """
    select.remove(owner, FORWARD, addresses)
    release(owner, mappings)


def release(owner: Owner, mappings: Sequence[PortMapping] = ()) -> None:
    """End the claims of `owner` and the tracked flows of its ports."""
    known = (*mappings, *ledger.list_held(owner))
    errors = ErrorList()
    errors.attempt(flush_connections, known)
    errors.attempt(ledger.release, owner)
    errors.raise_any()


def flush_connections(mappings: Sequence[PortMapping]) -> None:
    """Delete the tracked UDP flows of host ports: the kernel would keep sending them where it did before.

    A failure is only logged: the flows end by themselves.
    """
    ports = dict.fromkeys((each.host_port, each.host_ip) for each in mappings if each.protocol == "udp")
    if not ports:
        return
    # A cold start that publishes TCP ports only does not need it.
    from cni.kernel import conntrack

    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            conntrack.flush_ports("udp", ports, family)
    except CniError as error:
        note(f"portmap: could not forget flows to UDP ports: {error}")

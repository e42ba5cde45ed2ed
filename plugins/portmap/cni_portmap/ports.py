"""The steps that several verbs share: claims of host ports, and connection tracking."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import select
from cni.firewall.intents import FORWARD
from cni.hostports import ledger
from cni.log import note
from cni_portmap.plan import list_host_ends

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.intents import PortForward, PortMapping
    from cni.request import Request
    from cni.undo import Undo

# The option's owner in errors of the backends.
WHAT = "portmap"


@contextmanager
def claimed(intent: PortForward, request: Request, undo: Undo) -> Iterator[None]:
    """Claim the host ports for the `with` block to publish, and remove rules of containers that are gone.

    Raises CniError 103 if another container holds one of the host ports.
    """
    host_ends = list_host_ends(request.required_prev_result())
    with ledger.claim(intent.owner, intent.mappings, request.netns, undo, host_ends) as former:
        for dead in former:
            select.remove(dead, FORWARD)
            ledger.forget(dead)
        yield


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

"""Publish ports, take them back, compare: rules, claims on host ports, connection tracking, one sysctl."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, ErrorList
from cni.firewall import select
from cni.hostports import ledger, listeners
from cni.kernel import sysctl
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.intents import Owner, PortForward, PortMapping
    from cni.result import IpInterface
    from cni.undo import Undo

WHAT = "portmap"


class Place(NamedTuple):
    """Where a container is: the path of its namespace, and links of its result that are on the host."""

    netns: str
    host_ends: Sequence[str]


def ensure_published(intent: PortForward, asked: str, place: Place, undo: Undo) -> None:
    """Publish ports with the backend asked for; "" leaves the choice open.

    Raises CniError 103 when a host port is another container's.
    """
    backend = select.choose_for_add(asked, WHAT)
    with claimed(intent, place, undo):
        backend.add_forward(intent, undo)
    flush_connections(intent.mappings)
    # The last step, as nobody can tell later whether another container has come to need it.
    for device in localhost_devices(intent):
        sysctl.ensure(route_localnet(device), "1")


@contextmanager
def claimed(intent: PortForward, place: Place, undo: Undo) -> Iterator[None]:
    """Claim the host ports for the `with` block to publish, with no rules of the dead in the way.

    Raises CniError 103 when a host port is another container's.
    """
    with ledger.claim(intent.owner, intent.mappings, place.netns, undo, place.host_ends) as former:
        for dead in former:
            select.remove_forward(dead)
            ledger.forget(dead)
        yield


def remove_published(owner: Owner, mappings: Sequence[PortMapping]) -> None:
    """Take back all ports of `owner`, whatever published them; `mappings` are those known to the runtime.

    The claims go last: what could not be removed must not be given to another container.
    """
    known = (*mappings, *ledger.list_held(owner))
    select.remove_forward(owner)
    errors = ErrorList()
    errors.attempt(flush_connections, known)
    errors.attempt(ledger.release, owner)
    errors.raise_any()


def note_listeners(intent: PortForward) -> None:
    """Tell on stderr of processes of the host that nobody reaches any more on a port just published."""
    for each in listeners.find(intent.mappings, [target.version for target in intent.targets]):
        note(f'portmap: {each}, where container "{intent.owner.container_id}" is reached now instead')


def flush_connections(mappings: Sequence[PortMapping]) -> None:
    """Forget UDP flows to host ports: they would go on being sent where they went so far.

    That it fails is only noted: the flows end by themselves.
    """
    ports = dict.fromkeys((each.host_port, each.host_ip) for each in mappings if each.protocol == "udp")
    if not ports:
        return
    from cni.kernel import conntrack

    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            conntrack.flush_ports("udp", ports, family)
    except CniError as error:
        note(f"portmap: could not forget flows to UDP ports: {error}")


def localhost_devices(intent: PortForward) -> list[str]:
    """Give the links towards the container's IPv4 address that must let 127.0.0.1 through."""
    if not intent.snat:
        return []
    devices = [_find_device(target) for target in intent.targets if target.version == 4]
    return [device for device in devices if device]


def _find_device(target: IpInterface) -> str | None:
    from cni.kernel import route
    from cni.kernel.rtnetlink import Netlink

    with Netlink() as nl:
        index = route.find_link_index(nl, target.ip)
    with suppress(OSError):
        return socket.if_indextoname(index) if index else None
    return None


def route_localnet(device: str) -> str:
    """Name the sysctl that lets 127.0.0.1 through a link."""
    return f"net/ipv4/conf/{device}/route_localnet"

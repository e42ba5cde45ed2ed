"""Addresses, routes and settings of the container's link; forwarding and announcement."""

from __future__ import annotations

import errno
import time
from ipaddress import IPv6Interface
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface.pair import UNKNOWN, UP, wait_until_up
from cni.interface.plan import FORWARDING, versions_of
from cni.kernel import addr, link, neigh, route, sysctl
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.interface.pair import Sides
    from cni.interface.plan import Layer3
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message, Netlink
    from cni.result import Ip, IpInterface

_SETTLED_WITHIN_S = 10.0
_RECEIVED_WITHIN_S = 5.0


def configure(plan: Layer3, sides: Sides, container: Link, *before: Message) -> None:
    """Set the addresses and routes of the container's link and switch it on; send `before` first of all."""
    if 6 in versions_of(plan.ips):
        with sides.ns.entered():
            _set_sysctls(plan, container.name)
    name, index = container.name, container.index
    first = [*before, link.set_arp_notify(name, index)]
    up = link.set_flags(name, index, on=link.IFF_UP)
    if plan.dad:
        add(plan._replace(routes=()), sides.inside, container, first, up)
        _wait_until_settled(sides.inside, container)
        add(plan._replace(ips=()), sides.inside, container)
        wait_until_received(sides.inside, container, [ip.address for ip in plan.ips])
    else:
        add(plan, sides.inside, container, first, up)


def add(
    plan: Layer3, inside: Netlink, container: Link, before: Sequence[Message] = (), *between: Message
) -> None:
    """Add addresses and routes in one send, and wait until packets to the addresses are received.

    `between` are sent after the addresses. An address or a route can exist already only if IPAM has named it
    twice.
    """
    name, index = container.name, container.index
    addresses = [
        addr.add(name, index, ip.address, dad=plan.dad, prefix_route=plan.prefix_route) for ip in plan.ips
    ]
    messages = [*before, *addresses, *between]
    refusals = inside.attempt(
        [*messages, *(route.add(name, index, each, src=each.src) for each in plan.routes)]
    )
    for refusal in refusals[: len(messages)]:
        if refusal and refusal.errno != errno.EEXIST:
            raise refusal
    for refusal, each in zip(refusals[len(messages) :], plan.routes, strict=True):
        if refusal:
            route.ensure(inside, name, index, each, src=each.src)
    if not plan.dad:
        wait_until_received(inside, container, [ip.address for ip in plan.ips])


def switch_on(nl: Netlink, end: Link) -> None:
    """Switch a link on."""
    nl.batch([link.set_flags(end.name, end.index, on=link.IFF_UP)])


def _set_sysctls(plan: Layer3, ifname: str) -> None:
    """Set the sysctls that a link with IPv6 addresses needs before it is up; in the container's namespace.

    Without such addresses the kernel checks the link-local one as on every host. To have that at once
    makes the kernel send to all neighbours while ADD waits for it: 8 ms on a bridge with 1,000 ports.
    """
    ipv6 = f"net/ipv6/conf/{ifname}"
    if plan.dad:
        sysctl.set_if_possible(f"{ipv6}/enhanced_dad", "1")
    sysctl.set_if_possible(f"{ipv6}/accept_dad", "1" if plan.dad else "0")
    for each in ("lo", ifname):
        if sysctl.read(f"net/ipv6/conf/{each}/disable_ipv6") is None:
            note(f"pycni: could not read whether IPv6 is disabled on {each}; going on")
        else:
            sysctl.ensure(f"net/ipv6/conf/{each}/disable_ipv6", "0")
    sysctl.ensure(f"{ipv6}/keep_addr_on_down", "1")


def _wait_until_settled(inside: Netlink, container: Link) -> None:
    """Wait until the kernel has checked all addresses. Raise CniError 100 for a duplicate or after 10 s."""
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        present = addr.list_addrs(inside, container.index)
        for each in present:
            if each.is_duplicate:
                raise CniError(
                    Code.KERNEL,
                    f"link {container.name} has address {each.address.ip} in DADFAILED state",
                    "another machine on this network has the address",
                )
        waiting = [str(each.address.ip) for each in present if each.is_tentative]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise CniError(
                Code.KERNEL,
                f"link {container.name} still has tentative addresses after {_SETTLED_WITHIN_S:g} s",
                f"they are {', '.join(waiting)}",
            )
        time.sleep(0.01)


def wait_until_received(
    nl: Netlink, holder: Link, addresses: Iterable[IpInterface], *, within_s: float = _RECEIVED_WITHIN_S
) -> None:
    """Wait until the kernel receives packets to IPv6 addresses of a link.

    A link has an address at once, but the kernel makes the local route later, in a work queue: on a busy host
    some 10 ms later. Until then it answers that there is no route to the address. Without that route after
    `within_s` ADD goes on: the address was removed meanwhile, or rules of the namespace look elsewhere.
    """
    deadline = time.monotonic() + within_s
    pause_s = 0.00002
    for address in (each.ip for each in addresses if isinstance(each, IPv6Interface)):
        while not route.is_received(nl, address, holder.index):
            if time.monotonic() > deadline:
                note(f"pycni: {holder.name} does not receive packets to {address}; going on")
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)


def announce(ips: tuple[Ip, ...], sides: Sides, container: Link) -> None:
    """Announce the container's addresses to neighbours, which may remember an earlier holder."""
    try:
        if 6 in versions_of(ips):
            # Until then the kernel may have no route for multicast there, and ask the gateway to pass it on.
            # A link whose driver reports no state, as ipvlan's on some kernels, is ready when it is switched
            # on, see Documentation/networking/operstates.rst.
            wait_until_up(sides.inside, container.name, states=(UP, UNKNOWN))
        neigh.announce(sides.inside, sides.ns, container, [ip.address.ip for ip in ips])
    except (OSError, CniError) as error:
        note(f"pycni: could not announce the addresses of {container.name}: {error}")


def remember(nl: Netlink, bridge: int, ips: Iterable[Ip], mac: str) -> None:
    """Write IPv4 addresses that do not have their derived MAC address into the host's table of neighbours.

    A later ADD announces such an address although the next container has the derived one.
    """
    messages = [neigh.remember(bridge, ip.address.ip, mac) for ip in ips if ip.address.version == 4]
    if messages:
        # Without effect where the bridge has no IPv4.
        nl.attempt(messages)


def forward(versions: Iterable[int]) -> None:
    """Make the host forward packets of these IP versions."""
    for version in sorted(set(versions)):
        sysctl.ensure(FORWARDING[version], "1")

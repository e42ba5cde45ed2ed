"""Addresses, routes and settings of the container's link, and the gateway's addresses on the host."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import addr, link, neigh, route, sysctl
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni_bridge import links
from cni_bridge.bridges import bridge_locked, has_mac
from cni_bridge.plan import FORWARDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message
    from cni.result import IpInterface, Route
    from cni.undo import Undo
    from cni_bridge.links import Sides
    from cni_bridge.plan import AddressPlan, Gateway

_SETTLED_WITHIN_S = 10.0


def configure(plan: AddressPlan, sides: Sides, container: Link) -> None:
    """Give the container's link its addresses and routes and switch it on."""
    with sides.ns.entered():
        _set_sysctls(plan, container.name)
    name, index = container.name, container.index
    addresses = [addr.add(name, index, ip.address, dad=plan.dad) for ip in plan.ips]
    up = link.set_flags(name, index, on=link.IFF_UP)
    messages = [link.set_arp_notify(name, index), *addresses, up]
    if plan.dad:
        _apply(sides.inside, messages, [], container)
        wait_until_settled(sides.inside, container)
        messages = []
    _apply(sides.inside, messages, plan.routes, container)


def _apply(inside: Netlink, messages: Sequence[Message], routes: Sequence[Route], container: Link) -> None:
    """Send all together. An address or a route that is there already can only be IPAM naming it twice."""
    name, index = container.name, container.index
    refusals = inside.attempt([*messages, *(route.add(name, index, each) for each in routes)])
    for refusal in refusals[: len(messages)]:
        if refusal and refusal.errno != errno.EEXIST:
            raise refusal
    for refusal, each in zip(refusals[len(messages) :], routes, strict=True):
        if refusal:
            route.ensure(inside, name, index, each)


def switch_on(inside: Netlink, container: Link) -> None:
    """Switch the container's link on."""
    inside.batch([link.set_flags(container.name, container.index, on=link.IFF_UP)])


def _set_sysctls(plan: AddressPlan, ifname: str) -> None:
    """Set what must be set before the link is up; in the container's namespace."""
    ipv6 = f"net/ipv6/conf/{ifname}"
    if plan.dad:
        sysctl.set_if_possible(f"{ipv6}/enhanced_dad", "1")
    sysctl.set_if_possible(f"{ipv6}/accept_dad", "1" if plan.dad else "0")
    if 6 not in plan.families:
        return
    for each in ("lo", ifname):
        if sysctl.read(f"net/ipv6/conf/{each}/disable_ipv6") is None:
            note(f"pycni: could not read whether IPv6 is disabled on {each}; going on")
        else:
            sysctl.ensure(f"net/ipv6/conf/{each}/disable_ipv6", "0")
    sysctl.ensure(f"{ipv6}/keep_addr_on_down", "1")


def wait_until_settled(inside: Netlink, container: Link) -> None:
    """Wait until duplicate detection has passed all addresses. Raises CniError 100 when it does not."""
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while True:
        found = addr.list_addrs(inside, container.index)
        for each in found:
            if each.is_duplicate:
                raise CniError(
                    Code.KERNEL,
                    f"link {container.name} has address {each.address.ip} in DADFAILED state",
                    "another machine on this network has the address",
                )
        waiting = [str(each.address.ip) for each in found if each.is_tentative]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise CniError(
                Code.KERNEL,
                f"link {container.name} still has tentative addresses after {_SETTLED_WITHIN_S:g} s",
                f"they are {', '.join(waiting)}",
            )
        time.sleep(0.01)


def announce(plan: AddressPlan, sides: Sides, container: Link) -> None:
    """Tell the neighbours of the container's addresses; they may remember who had them before."""
    try:
        if 6 in plan.families:
            # Until then the kernel may have no route for multicast there, and ask the gateway to pass it on.
            links.wait_for_port(sides.inside, container.name)
        neigh.announce(sides.inside, sides.ns, container, [ip.address.ip for ip in plan.ips])
    except (OSError, CniError) as error:
        note(f"pycni: could not announce the addresses of {container.name}: {error}")


def ensure_gateway(nl: Netlink, plan: Gateway, holder: Link, host_name: str, undo: Undo) -> None:
    """Give the bridge the gateway's addresses and let the host route. Raises CniError 105 for others on it.

    `holder` is the link that has the addresses, `host_name` the port of the container that this is for.
    """
    # What is there stays without a lock: who takes an address away looks for ports first, and there is one.
    missing = [each for each in plan.addresses if each not in _addresses(nl, holder, each.version)]
    if missing:
        with bridge_locked(plan.bridge):
            for address in missing:
                _ensure_address(nl, plan, address, host_name, undo)
    for version in sorted({address.version for address in plan.addresses}):
        sysctl.ensure(FORWARDING[version], "1")


def _addresses(nl: Netlink, holder: Link, version: int) -> list[IpInterface]:
    return [each.address for each in addr.list_addrs(nl, holder.index, version)]


def _ensure_address(nl: Netlink, plan: Gateway, address: IpInterface, host_name: str, undo: Undo) -> None:
    holder = link.get(nl, plan.link)
    found = _addresses(nl, holder, address.version)
    if address in found:
        return
    for other in found:
        if other not in plan.addresses and _conflicts(other, address):
            if not plan.force:
                raise _differs(plan.link, other, address)
            undo.add(f"give {plan.link} the address {other} back", _restore_address, plan.link, other)
            addr.remove(nl, holder.name, holder.index, other)
    _warn_of_overlap(nl, holder, address)
    undo.add(f"remove {address} from {plan.link}", _remove_unused_address, plan, address, host_name)
    addr.ensure(nl, holder.name, holder.index, address, dad=plan.dad)
    if has_mac(holder):
        # It pins the address, which else is that of a port and changes as ports come and go.
        nl.batch([link.set_mac(holder.name, holder.index, holder.mac)])


def _warn_of_overlap(nl: Netlink, holder: Link, address: IpInterface) -> None:
    """Log that another link of the host has the subnet, once for each bridge: when it gets its address."""
    try:
        found = route.find_connected(nl, address.network[-2 if address.network.num_addresses > 2 else 0])
        other = link.find_by_index(nl, found[0]) if found and found[0] != holder.index else None
    except (CniError, ValueError):
        # ADD does not depend on it.
        return
    if found and other and other.name != "lo":
        note(
            f"bridge: subnet {address.network} of {holder.name} overlaps {found[1]} of {other.name}: "
            "traffic to one of them goes astray, change the subnet of one network"
        )


def _conflicts(other: IpInterface, address: IpInterface) -> bool:
    """Tell whether both cannot be on one bridge: a bridge has one IPv4 subnet, and IPv6 ones apart."""
    if other.version != address.version:
        return False
    return address.version == 4 or address.ip in other.network or other.ip in address.network


def _differs(name: str, other: IpInterface, address: IpInterface) -> CniError:
    return CniError(
        Code.ALREADY_EXISTS,
        f'failed to set bridge addr: "{name}" already has an IP address different from {address}',
        f"it has {other}; set forceAddress to replace it, or: ip addr del {other} dev {name}",
    )


def _restore_address(name: str, address: IpInterface) -> None:
    with Netlink() as nl:
        if holder := link.find(nl, name):
            addr.ensure(nl, name, holder.index, address)


def _remove_unused_address(plan: Gateway, address: IpInterface, host_name: str) -> None:
    """Take an address off again unless another container may count on it by now."""
    with bridge_locked(plan.bridge), Netlink() as nl:
        bridge, holder = link.find(nl, plan.bridge), link.find(nl, plan.link)
        if bridge is None or holder is None:
            return
        ports = link.list_links(nl, bridge.index)
        if all(port.name == host_name or port.index == holder.local_peer for port in ports):
            addr.remove(nl, holder.name, holder.index, address)

"""The gateway's addresses on a link of the host that the containers of a network share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.interface import layer3
from cni.kernel import addr, link, route
from cni.kernel.rtnetlink import Netlink
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cni.kernel.link import Link
    from cni.result import IpInterface
    from cni.undo import Undo


class Addresses(NamedTuple):
    """The addresses of a gateway, and what the plugin knows about their link.

    `force` replaces other addresses of the link, instead of an error; `dad` checks for duplicates. ADDs
    change the link under the lock that `locked` takes. `remove_unused` removes an address that an ADD has
    set, unless another container may need it by now.
    """

    wanted: tuple[IpInterface, ...]
    force: bool
    dad: bool
    locked: Callable[[], AbstractContextManager[None]]
    remove_unused: Callable[[IpInterface], None]


def ensure(nl: Netlink, holder: Link, plan: Addresses, undo: Undo) -> None:
    """Set the gateway's addresses on `holder` and make the host forward.

    Raise CniError 105 if the link has other addresses.
    """
    # No lock for addresses that are present: an address is only removed if no other container needs it.
    missing = [each for each in plan.wanted if each not in _addresses(nl, holder, each.version)]
    if missing:
        with plan.locked():
            for address in missing:
                _ensure_address(nl, link.get(nl, holder.name), plan, address, undo)
        if not plan.dad:
            layer3.wait_until_received(nl, holder, missing)
    layer3.forward(address.version for address in plan.wanted)


def _addresses(nl: Netlink, holder: Link, version: int) -> list[IpInterface]:
    return [each.address for each in addr.list_addrs(nl, holder.index, version)]


def _ensure_address(nl: Netlink, holder: Link, plan: Addresses, address: IpInterface, undo: Undo) -> None:
    name, index = holder.name, holder.index
    present = _addresses(nl, holder, address.version)
    if address in present:
        return
    for other in present:
        if other not in plan.wanted and _conflicts(other, address):
            if not plan.force:
                raise _differs(name, other, address)
            undo.add(f"give {name} the address {other} back", _restore_address, name, other)
            addr.remove(nl, name, index, other)
    _warn_of_overlap(nl, holder, address)
    undo.add(f"remove {address} from {name}", plan.remove_unused, address)
    addr.ensure(nl, name, index, address, dad=plan.dad)
    if has_mac(holder):
        # This pins the address of a bridge: the kernel would otherwise take that of a port, and change it
        # with the ports.
        nl.batch([link.set_mac(name, index, holder.mac)])


def has_mac(holder: Link) -> bool:
    """Return whether a link has a MAC address; the kernel refuses to set one of zeros."""
    return any(bytes.fromhex(holder.mac.replace(":", "")))


def _warn_of_overlap(nl: Netlink, holder: Link, address: IpInterface) -> None:
    """Log that another link of the host has the subnet; once for each gateway, when it gets its address."""
    try:
        connected = route.find_connected(nl, address.network[-2 if address.network.num_addresses > 2 else 0])
        other = link.find_by_index(nl, connected[0]) if connected and connected[0] != holder.index else None
    except (CniError, ValueError):
        # ADD does not depend on it.
        return
    if connected and other and other.name != "lo":
        note(
            f"{holder.kind}: subnet {address.network} of {holder.name} overlaps {connected[1]} of "
            f"{other.name}: traffic to one of them goes astray, change the subnet of one network"
        )


def _conflicts(other: IpInterface, address: IpInterface) -> bool:
    """Return whether a link cannot have both: it has one IPv4 subnet, and IPv6 subnets apart."""
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

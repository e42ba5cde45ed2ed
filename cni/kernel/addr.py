"""Addresses of links."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Interface, ip_interface
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, number, shown_number
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from ipaddress import IPv6Address

    from cni.result import IpInterface

# The flags of an address, rtnetlink(7).
_IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE, _IFA_F_NOPREFIXROUTE = 0x02, 0x08, 0x40, 0x200
_RT_SCOPE_UNIVERSE = 0
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}

# struct ifaddrmsg and the attributes, <linux/if_addr.h>
_HEAD = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, link index
_ADDRESS, _LOCAL, _BROADCAST, _FLAGS = 1, 2, 4, 8


class Addr(NamedTuple):
    """An address as the kernel shows it; `is_global` is off for link-local and loopback addresses."""

    address: IpInterface
    is_global: bool
    is_tentative: bool
    is_duplicate: bool
    has_prefix_route: bool = True


def ensure(nl: Netlink, name: str, index: int, address: IpInterface, *, dad: bool = False) -> bool:
    """Add an address to a link; return False if it was there already. Raise KernelError.

    `dad` is as in `add`.
    """
    try:
        nl.batch([add(name, index, address, dad=dad)])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def add(
    name: str, index: int, address: IpInterface, *, dad: bool = False, prefix_route: bool = True
) -> Message:
    """Add an address to a link that does not have it.

    Without `dad` (duplicate address detection) an IPv6 address is usable at once. With `prefix_route` off
    the kernel adds no route to the address's subnet, as "noprefixroute" of `ip address`.
    """
    body = _body(index, address)
    flags = 0 if prefix_route else _IFA_F_NOPREFIXROUTE
    if isinstance(address, IPv4Interface):
        if address.network.prefixlen < 31:
            body += attribute(_BROADCAST, address.network.broadcast_address.packed)
    elif not dad:
        flags |= _IFA_F_NODAD
    if flags:
        body += number(_FLAGS, flags)
    how = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    return Message(f'failed to add IP addr {address} to "{name}"', rtnetlink.RTM_NEWADDR, how, body=body)


def remove(nl: Netlink, name: str, index: int, address: IpInterface) -> bool:
    """Remove an address from a link; return False if the link has none such, or there is no link."""
    doing = f'could not remove address {address} from "{name}"'
    try:
        nl.batch([Message(doing, rtnetlink.RTM_DELADDR, body=_body(index, address))])
    except KernelError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.ENODEV}:
            return False
        raise
    return True


def list_addrs(nl: Netlink, index: int = 0, version: int = 0) -> list[Addr]:
    """List the addresses of a link, of every link for index 0; [] if there is no such link.

    `version` 4 or 6 lists the addresses of that version only.
    """
    found = []
    for family in [_FAMILIES[version]] if version else _FAMILIES.values():
        body = _HEAD.pack(family, 0, 0, 0, index)
        message = Message("list addresses", rtnetlink.RTM_GETADDR, body=body)
        try:
            found += [_parse(each) for each in nl.dump(message)]
        except KernelError as error:
            if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
                raise
    return found


def has_ipv6(nl: Netlink, address: IPv6Address) -> bool:
    """Return whether any link has an IPv6 address. Its local route may come a little later."""
    body = _HEAD.pack(socket.AF_INET6, 0, 0, 0, 0) + attribute(_ADDRESS, address.packed)
    try:
        nl.request(Message(f"find address {address}", rtnetlink.RTM_GETADDR, body=body))
    except KernelError as error:
        # The last two are for a kernel without IPv6.
        if error.errno in {errno.EADDRNOTAVAIL, errno.ENODEV, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def _body(index: int, address: IpInterface) -> bytes:
    head = _HEAD.pack(_FAMILIES[address.version], address.network.prefixlen, 0, 0, index)
    return head + attribute(_LOCAL, address.ip.packed) + attribute(_ADDRESS, address.ip.packed)


def _parse(payload: bytes) -> Addr:
    _, prefix, flags, scope, _ = _HEAD.unpack_from(payload)
    shown = attributes(payload[_HEAD.size :])
    flags = shown_number(shown.get(_FLAGS, b"")) or flags
    return Addr(
        # IFA_LOCAL is the own address of one with a peer. Without a peer IPv6 has IFA_ADDRESS only.
        ip_interface((shown.get(_LOCAL) or shown[_ADDRESS], prefix)),
        is_global=scope == _RT_SCOPE_UNIVERSE,
        is_tentative=bool(flags & _IFA_F_TENTATIVE),
        is_duplicate=bool(flags & _IFA_F_DADFAILED),
        has_prefix_route=not flags & _IFA_F_NOPREFIXROUTE,
    )

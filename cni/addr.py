"""Addresses of links."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Interface, ip_interface
from typing import TYPE_CHECKING, Any

from cni import netlink
from cni.errors import KernelError
from cni.netlink import Message, Netlink

if TYPE_CHECKING:
    from cni.result import IpInterface

# The flags of an address, rtnetlink(7).
_IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x02, 0x08, 0x40
_RT_SCOPE_UNIVERSE = 0


@dataclass(frozen=True, slots=True)
class Addr:
    """An address as the kernel shows it; `is_global` leaves out link-local and loopback ones."""

    address: IpInterface
    is_global: bool
    is_tentative: bool
    is_duplicate: bool


def ensure(nl: Netlink, name: str, index: int, address: IpInterface, *, dad: bool = False) -> bool:
    """Add an address to a link; False if it was there already. Raises KernelError.

    Without `dad` an IPv6 address is usable at once, as nobody is asked whether it is taken.
    """
    attrs = _attrs(address)
    if isinstance(address, IPv4Interface):
        if address.network.prefixlen < 31:
            attrs.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    elif not dad:
        attrs.append(("IFA_FLAGS", _IFA_F_NODAD))
    doing = f'failed to add IP addr {address} to "{name}"'
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    try:
        nl.batch([Message(doing, netlink.RTM_NEWADDR, flags, _fields(index, address), attrs)])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def remove(nl: Netlink, name: str, index: int, address: IpInterface) -> bool:
    """Take an address off a link; False if the link has none such, or there is no link."""
    doing = f'could not remove address {address} from "{name}"'
    try:
        nl.batch([Message(doing, netlink.RTM_DELADDR, 0, _fields(index, address), _attrs(address))])
    except KernelError as error:
        if error.errno in {errno.EADDRNOTAVAIL, errno.ENODEV}:
            return False
        raise
    return True


def list_addrs(nl: Netlink, index: int = 0) -> list[Addr]:
    """List the addresses of a link, of every link for index 0; [] if there is no such link."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        message = Message("list addresses", netlink.RTM_GETADDR, fields={"family": family, "index": index})
        try:
            found += [_parse(each) for each in nl.dump(message)]
        except KernelError as error:
            if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
                raise
    return found


def _fields(index: int, address: IpInterface) -> dict[str, int]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return {"index": index, "family": family, "prefixlen": address.network.prefixlen}


def _attrs(address: IpInterface) -> list[tuple[str, Any]]:
    return [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]


def _parse(shown: Any) -> Addr:
    # An address with a peer has its own in IFA_LOCAL; IPv6 has only IFA_ADDRESS without one.
    text = shown.get_attr("IFA_LOCAL") or shown.get_attr("IFA_ADDRESS")
    flags = shown.get_attr("IFA_FLAGS") or shown["flags"]
    return Addr(
        ip_interface(f"{text}/{shown['prefixlen']}"),
        is_global=shown["scope"] == _RT_SCOPE_UNIVERSE,
        is_tentative=bool(flags & _IFA_F_TENTATIVE),
        is_duplicate=bool(flags & _IFA_F_DADFAILED),
    )

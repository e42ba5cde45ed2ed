"""Neighbours: announce the MAC address of an IP address to them, read and write the host's own table.

An announcement is a gratuitous ARP or an unsolicited NA. It uses no packet socket: closing one makes the
kernel wait for a grace period, 11 ms of an ADD of 15.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.kernel import link, rtnetlink
from cni.kernel.attributes import attribute, attributes
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink
    from cni.result import IpAddress

_ALL_NODES = "ff02::1"
_NEIGHBOUR_ADVERTISEMENT = 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2
# Receivers require it, as it proves that no router forwarded the message: RFC 4861, section 7.1.2.
_HOP_LIMIT = 255

# struct ndmsg and the attributes, <linux/neighbour.h>
_HEAD = struct.Struct("=BxxxiHBB")  # family, link index, state, flags, type
_DST, _LLADDR = 1, 2
_STALE = 0x04
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


def look_up(index: int, address: IpAddress) -> Message:
    """Ask for the entry of an address on a link; `shown_mac` reads the answer."""
    body = _HEAD.pack(_FAMILIES[address.version], index, 0, 0, 0) + attribute(_DST, address.packed)
    return Message(f"look up neighbour {address}", rtnetlink.RTM_GETNEIGH, body=body)


def shown_mac(answer: bytes | KernelError) -> str:
    """Return the MAC address of an entry; "" if there is no entry, or none with a MAC address."""
    if isinstance(answer, KernelError):
        if answer.errno == errno.ENOENT:
            return ""
        raise answer
    return attributes(answer[_HEAD.size :], {_LLADDR}).get(_LLADDR, b"").hex(":")


def remember(index: int, address: IpAddress, mac: str) -> Message:
    """Write an entry that the kernel verifies before it relies on it, as after a while without traffic."""
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE
    head = _HEAD.pack(_FAMILIES[address.version], index, _STALE, 0, 0)
    body = head + attribute(_DST, address.packed) + attribute(_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return Message(f"could not write neighbour {address}", rtnetlink.RTM_NEWNEIGH, flags, body=body)


def announce(nl: Netlink, netns: Netns, holder: Link, addresses: Sequence[IpAddress]) -> None:
    """Announce addresses of a link that is up; `nl` is the socket in its namespace.

    The kernel announces IPv4 addresses of a link with `arp_notify` when its MAC address is set, also to the
    same value. That of an ipvlan link is its master's and cannot be set: such a link has no carrier to wait
    for, and its addresses were announced when it was switched on. Raise OSError or KernelError.
    """
    if any(each.version == 4 for each in addresses):
        [refusal] = nl.attempt([link.set_mac(holder.name, holder.index, holder.mac)])
        if refusal and refusal.errno != errno.EOPNOTSUPP:
            raise refusal
    advertised = [each for each in addresses if isinstance(each, IPv6Address)]
    if advertised:
        _advertise(netns, holder, advertised)


def _advertise(netns: Netns, holder: Link, addresses: Sequence[IPv6Address]) -> None:
    mac = bytes.fromhex(holder.mac.replace(":", ""))
    for address in addresses:
        with netns.entered():
            sender = socket.socket(
                socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6
            )
        with sender:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
            sender.bind((str(address), 0))
            sender.sendto(unsolicited_advertisement(mac, address), (_ALL_NODES, 0, 0, holder.index))


def unsolicited_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """Return the ICMPv6 message of RFC 4861, section 7.2.6, with the override flag, without a checksum.

    The kernel fills in the checksum.
    """
    head = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE)
    return head + address.packed + struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac

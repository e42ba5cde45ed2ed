"""Announce the MAC address of an IP address to the neighbours: gratuitous ARP, unsolicited NA.

It uses no packet socket: closing one makes the kernel wait for a grace period, 11 ms of an ADD of 15.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from cni.kernel import link

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


def announce(nl: Netlink, netns: Netns, holder: Link, addresses: Sequence[IpAddress]) -> None:
    """Announce addresses of a link that is up; `nl` is the socket in its namespace.

    The kernel announces IPv4 addresses of a link with `arp_notify` when its MAC address is set, also to the
    same value. Raise OSError or KernelError.
    """
    if any(each.version == 4 for each in addresses):
        nl.batch([link.set_mac(holder.name, holder.index, holder.mac)])
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

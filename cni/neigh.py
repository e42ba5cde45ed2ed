"""Tell the neighbours which MAC address an IP address has now: gratuitous ARP, unsolicited NA."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.netns import Netns
    from cni.result import IpAddress

_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_ARP_REQUEST = 1
_ICMPV6, _NEIGHBOUR_ADVERTISEMENT = 58, 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER_ADDRESS = 2


def announce(netns: Netns, ifname: str, mac: str, addresses: Iterable[IpAddress]) -> None:
    """Send one announcement for each address from a link in `netns`; raises OSError."""
    source = bytes.fromhex(mac.replace(":", ""))
    with netns.entered():
        # The name is looked up by bind(2) in the socket's namespace; protocol 0 is deaf.
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    with link:
        link.bind((ifname, 0))
        for address in addresses:
            link.send(_frame(source, address))


def _frame(mac: bytes, address: IpAddress) -> bytes:
    if isinstance(address, IPv4Address):
        return gratuitous_arp(mac, address)
    return unsolicited_advertisement(mac, address)


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """Give the Ethernet frame of RFC 5227, section 3: an ARP request for one's own address."""
    arp = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, _ARP_REQUEST)
    arp += mac + address.packed + b"\0" * 6 + address.packed
    return _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP) + arp


def unsolicited_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """Give the Ethernet frame of RFC 4861, section 7.2.6, to all nodes, with the override flag."""
    option = struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + mac
    body = struct.pack("!I", _OVERRIDE) + address.packed + option
    head = struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0)
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", len(head + body), _ICMPV6)
    head = struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, checksum(pseudo + head + body))
    # Hop limit 255 proves that no router sent it on.
    ip = struct.pack("!IHBB", 0x60000000, len(head + body), _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_P_IPV6) + ip + head + body


def checksum(data: bytes) -> int:
    """Give the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

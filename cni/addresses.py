"""Addresses and prefixes as text, read as strictly as Go's net package reads them."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.result import IpAddress, IpInterface, IpNetwork

# One call reads the same few texts many times, and a network's are the same in all its calls.
_REMEMBERED = 256
_CIDR = re.compile(r"[0-9a-fA-F:.]+/[0-9]{1,3}")


@lru_cache(_REMEMBERED)
def parse_ip(text: str) -> IpAddress:
    """Read "10.1.0.2" or "fd00::2"; no zone; an IPv4-mapped address is an IPv4 one. Raises ValueError."""
    try:
        address = ip_address("" if "%" in text else text)
    except ValueError:
        raise ValueError(f"invalid IP address {text}") from None
    return unmapped(address)


@lru_cache(_REMEMBERED)
def parse_cidr(text: str) -> IpInterface:
    """Read "10.1.0.2/16", host bits allowed, the prefix as a length only. Raises ValueError."""
    try:
        interface = ip_interface(text if _CIDR.fullmatch(text) else "")
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    if isinstance(interface, IPv6Interface) and interface.ip.ipv4_mapped:
        raise ValueError(f"invalid CIDR address: {text} (write an IPv4 prefix as IPv4)")
    return interface


@lru_cache(_REMEMBERED)
def parse_network(text: str) -> IpNetwork:
    """Read "10.1.0.0/16" as a network; host bits are dropped, as Go does. Raises ValueError."""
    return ip_network(parse_cidr(text), strict=False)


def unmapped(address: IpAddress) -> IPv4Address | IPv6Address:
    """Give ::ffff:10.0.0.1 as 10.0.0.1 and any other address as it is."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address

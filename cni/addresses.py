"""Parse addresses and prefixes as strictly as Go's net package."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.result import IpAddress, IpInterface, IpNetwork

# A call parses the same few strings many times, and all calls of a network share them.
_REMEMBERED = 256
_CIDR = re.compile(r"[0-9a-fA-F:.]+/[0-9]{1,3}")


@lru_cache(_REMEMBERED)
def parse_ip(text: str) -> IpAddress:
    """Parse "10.1.0.2" or "fd00::2", no zone. An IPv4-mapped address is an IPv4 one. Raise ValueError."""
    try:
        address = ip_address("" if "%" in text else text)
    except ValueError:
        raise ValueError(f"invalid IP address {text}") from None
    return unmapped(address)


@lru_cache(_REMEMBERED)
def parse_cidr(text: str) -> IpInterface:
    """Parse "10.1.0.2/16". Host bits are allowed, the prefix must be a length. Raise ValueError."""
    try:
        interface = ip_interface(text if _CIDR.fullmatch(text) else "")
    except ValueError:
        raise ValueError(f"invalid CIDR address: {text}") from None
    if isinstance(interface, IPv6Interface) and interface.ip.ipv4_mapped:
        raise ValueError(f"invalid CIDR address: {text} (write an IPv4 prefix as IPv4)")
    return interface


@lru_cache(_REMEMBERED)
def parse_network(text: str) -> IpNetwork:
    """Parse "10.1.0.0/16" as a network. Host bits are dropped, as in Go. Raise ValueError."""
    return ip_network(parse_cidr(text), strict=False)


@lru_cache(_REMEMBERED)
def parse_exact_network(text: str) -> IpNetwork:
    """Parse "10.1.0.0/16" or an address, which is a network of one. Raise ValueError, also for host bits."""
    found = parse_cidr(text) if "/" in text else parse_cidr(f"{text}/{128 if ':' in text else 32}")
    if found.ip != found.network.network_address:
        raise ValueError(f"{text} is no network: write {found.network}, or {found.ip} for one address")
    return ip_network(found.network)


def join_networks(networks: Iterable[IpNetwork]) -> tuple[IpNetwork, ...]:
    """Return networks of both families without overlaps, neighbours joined, IPv4 first."""
    listed = list(networks)
    return (
        *collapse_addresses(each for each in listed if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in listed if isinstance(each, IPv6Network)),
    )


def unmapped(address: IpAddress) -> IPv4Address | IPv6Address:
    """Return ::ffff:10.0.0.1 as 10.0.0.1, and any other address unchanged."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address

"""Ranges and range sets as values, checked when they are made; the errors are ValueErrors in Go's words.

A container gets one address of each range set. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.result import IpAddress, IpInterface, IpNetwork


@dataclass(frozen=True, slots=True)
class Range:
    """The addresses of a subnet from `start` to `end`, both of them included.

    The gateway is never assigned. It may be outside of the subnet.
    """

    subnet: IpNetwork
    start: IpAddress
    end: IpAddress
    gateway: IpAddress

    def __contains__(self, address: IpAddress) -> bool:
        return address.version == self.subnet.version and int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: Range) -> bool:
        """Return whether the two ranges have an address in common."""
        return other.start in self or self.start in other


RangeSet = tuple[Range, ...]


def make_range(
    subnet: IpInterface | None, start: IpAddress | None, end: IpAddress | None, gateway: IpAddress | None
) -> Range:
    """Make a range; what is None is derived from the subnet, which must be given. Raises ValueError.

    The default range is all of the subnet but its first address and IPv4's broadcast address.
    """
    if subnet is None:
        raise ValueError("IP <nil> not v4 nor v6: a range has no subnet")
    network = _usable_network(subnet)
    first = network.network_address + 1
    last = network.broadcast_address - (1 if network.version == 4 else 0)
    made = Range(network, start or first, end or last, gateway or first)
    if start and start not in network:
        raise ValueError(f"RangeStart {start} not in network {network}")
    if made.end not in network:
        raise ValueError(f"RangeEnd {made.end} not in network {network}")
    if int(made.start) > int(made.end):
        limit = f"RangeStart {start}" if start else f"RangeEnd {end}"
        raise ValueError(f"{limit} not in network {network}: the range {made} is empty")
    return made


def _usable_network(subnet: IpInterface) -> IpNetwork:
    network = subnet.network
    if network.prefixlen > network.max_prefixlen - 2:
        raise ValueError(f"Network {subnet} too small to allocate from")
    if subnet.ip != network.network_address:
        raise ValueError(
            f"Network has host bits set. For a subnet mask of length {network.prefixlen} "
            f"the network address is {network.network_address}"
        )
    return network


def make_range_set(ranges: RangeSet) -> RangeSet:
    """Check ranges that make one set: one family, none overlapping. Raises ValueError."""
    if not ranges:
        raise ValueError("empty range set")
    if len({each.subnet.version for each in ranges}) > 1:
        raise ValueError("mixed address families")
    for one, other in combinations(ranges, 2):
        if one.overlaps(other):
            raise ValueError(f"subnets {one} and {other} overlap")
    return ranges


def check_range_sets(range_sets: tuple[RangeSet, ...]) -> None:
    """Check range sets against each other. Raises ValueError when two of them have an address in common."""
    for (i, one), (j, other) in combinations(enumerate(range_sets), 2):
        if any(a.overlaps(b) for a in one for b in other):
            raise ValueError(f"range set {i} overlaps with {j}")


def find_range(range_set: RangeSet, address: IpAddress) -> Range | None:
    """Return the range that contains the address, None if none does."""
    return next((each for each in range_set if address in each), None)


def show_range_set(range_set: RangeSet) -> str:
    """Return a set as text: "10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.254"."""
    return ",".join(map(str, range_set))

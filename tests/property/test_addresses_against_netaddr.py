"""Addresses, subnets and ranges are what netaddr, an independent reader, makes of the same text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import netaddr
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cni.addresses import parse_cidr, parse_ip
from cni.runtime.pools import Span
from tests.support.examples import examples

ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
# Ranges that are small enough for an address to lie in one of them now and then.
NEAR = st.tuples(st.sampled_from(["10.1.0.0", "fd00::"]), st.integers(0, 300), st.integers(0, 300))


@examples
@given(ADDRESSES, st.data())
def test_a_subnet_has_the_same_ends(address: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    # parse_ip reads an IPv4-mapped address as the IPv4 address, as Go does.
    assume(not (isinstance(address, IPv6Address) and address.ipv4_mapped))
    length = data.draw(st.integers(0, address.max_prefixlen))
    ours, theirs = parse_cidr(f"{address}/{length}"), netaddr.IPNetwork(f"{address}/{length}")
    assert int(ours.ip) == int(theirs.ip) == int(parse_ip(str(address)))
    assert int(ours.network.network_address) == theirs.first
    assert int(ours.network.broadcast_address) == theirs.last


@examples
@given(NEAR, st.integers(0, 300), st.integers(0, 400))
def test_a_range_has_the_same_size_and_members(near: tuple[str, int, int], gateway: int, offset: int) -> None:
    base, one, other = near
    first = parse_ip(base)
    start, end = first + min(one, other), first + max(one, other)
    ours, theirs = Span(start, end, first + gateway), netaddr.IPRange(str(start), str(end))
    given_away = netaddr.IPSet(theirs) - netaddr.IPSet([str(first + gateway)])
    assert ours.size == given_away.size
    assert (first + offset in ours) == (netaddr.IPAddress(str(first + offset)) in theirs)


@examples
@given(NEAR, st.integers(0, 32))
def test_subnets_overlap_alike(near: tuple[str, int, int], length: int) -> None:
    base, one, other = near
    assume(length > 20 or ":" in base)
    first = parse_ip(base)
    texts = [f"{first + one}/{length}", f"{first + other}/{first.max_prefixlen - 4}"]
    ours = [parse_cidr(text).network for text in texts]
    theirs = [netaddr.IPSet([text]) for text in texts]
    assert ours[0].overlaps(ours[1]) == bool(theirs[0] & theirs[1])


@pytest.mark.parametrize("text", ["10.1", "010.1.0.1", "10.1.0.256", "::g", "1", "0x0a010001", "10.1.0.1 "])
def test_forms_that_only_netaddr_or_nobody_takes_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is tested where it is made
        parse_ip(text)

"""The order in which addresses are tried, and the rest of what is decided without looking at disk."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from itertools import islice

import pytest

from cni.result import Dns
from cni_host_local_ipam.plan import assign, count_addresses, is_full, list_candidates, parse_resolv_conf
from cni_host_local_ipam.ranges import Range, RangeSet, make_range


def make(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    given = [ip_address(each) if each else None for each in (start, end, gateway)]
    return make_range(ip_interface(subnet), *given)


TWO: RangeSet = (make("10.0.0.0/29", end="10.0.0.3"), make("10.0.1.0/29", start="10.0.1.5"))


@pytest.mark.parametrize(
    ("last", "order"),
    [
        (None, ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]),
        ("10.0.0.2", ["10.0.0.3", "10.0.1.5", "10.0.1.6", "10.0.0.2"]),
        ("10.0.0.3", ["10.0.1.5", "10.0.1.6", "10.0.0.2", "10.0.0.3"]),
        ("10.0.1.6", ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]),
        ("10.0.0.1", ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]),
        ("10.0.0.6", ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]),
        ("fd00::1", ["10.0.0.2", "10.0.0.3", "10.0.1.5", "10.0.1.6"]),
    ],
)
def test_candidates_form_a_ring_that_starts_behind_the_last(last: str | None, order: list[str]) -> None:
    found = [str(address) for address, _ in list_candidates(TWO, ip_address(last) if last else None)]
    assert found == order


@pytest.mark.parametrize(
    ("range_", "last", "order"),
    [
        (make("10.0.0.0/30", "10.0.0.2", "10.0.0.2"), None, ["10.0.0.2"]),
        (make("10.0.0.0/30", "10.0.0.2", "10.0.0.2"), "10.0.0.2", ["10.0.0.2"]),
        (make("10.0.0.0/30", "10.0.0.1", "10.0.0.1"), None, []),
        (make("10.0.0.0/30", gateway="10.0.0.2"), "10.0.0.1", ["10.0.0.1"]),
        (make("fd00::/126"), None, ["fd00::2", "fd00::3"]),
    ],
)
def test_the_gateway_is_never_a_candidate(range_: Range, last: str | None, order: list[str]) -> None:
    found = [str(address) for address, _ in list_candidates((range_,), ip_address(last) if last else None)]
    assert found == order
    assert count_addresses((range_,)) == len(order)


def test_a_huge_range_is_not_walked_through() -> None:
    huge = (make("1100:200::/24"),)
    first = [str(each) for each, _ in islice(list_candidates(huge, None), 2)]
    assert first == ["1100:200::2", "1100:200::3"]
    assert count_addresses(huge) == 2**104 - 2
    assert not is_full(huge, [ip_address("1100:200::2")])


def test_a_set_is_full_when_all_but_its_gateways_are_taken() -> None:
    taken = [ip_address(each) for each in ("10.0.0.2", "10.0.0.3", "10.0.1.5", "10.9.9.9", "10.0.0.1")]
    assert not is_full(TWO, taken)
    assert is_full(TWO, [*taken, ip_address("10.0.1.6")])


def test_each_set_gets_the_first_request_that_it_can_meet() -> None:
    six: RangeSet = (make("fd00::/64"),)
    asked = [ip_address(each) for each in ("10.9.0.1", "fd00::5", "10.0.0.3", "10.0.0.2")]
    assigned, left = assign((TWO, six), asked)
    assert [str(each) for each in assigned] == ["10.0.0.3", "fd00::5"]
    assert [str(each) for each in left] == ["10.9.0.1", "10.0.0.2"]


def test_resolv_conf_is_read_as_the_manual_says() -> None:
    text = """
    # nameserver 9.9.9.9
    ; search no
    nameserver 1.1.1.1 ignored
    nameserver
    nameserver 2.2.2.2
    domain first.example
    domain last.example
    search a.example b.example
    search c.example
    options ndots:2
    options edns0 trust-ad
    sortlist 1.2.3.4
    """
    assert parse_resolv_conf(text) == Dns(
        ("1.1.1.1", "2.2.2.2"),
        "last.example",
        ("a.example", "b.example", "c.example"),
        ("ndots:2", "edns0", "trust-ad"),
    )
    assert not parse_resolv_conf("")

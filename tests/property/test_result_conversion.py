"""Results survive every conversion that has a place for what they hold."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cni.convert import MIDDLE_SHAPE, NEWEST_SHAPE, OLDEST_SHAPE, dumps, parse_result, show_result
from cni.result import Dns, Interface, Ip, IpAddress, IpInterface, Result, Route
from tests.support.examples import examples

NAMES = st.text("abcxyz019._-", min_size=1, max_size=12)
COUNTS = st.integers(0, 2**31)
V4 = st.builds(
    lambda number, length: IPv4Interface((number, length)), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
# ::ffff:0:0/96 is IPv4 in other clothes and comes back as IPv4.
V6 = st.builds(
    lambda number, length: IPv6Interface((number, length)),
    st.integers(2**50, 2**128 - 1),
    st.integers(0, 128),
)
INTERFACES = st.builds(
    Interface, NAMES, st.just("02:00:00:00:00:01"), NAMES | st.just(""), COUNTS, NAMES | st.just("")
)


def gateways(version: int) -> st.SearchStrategy[IpAddress | None]:
    """Return no gateway or one of the family."""
    return st.none() | (V4 if version == 4 else V6).map(lambda interface: interface.ip)


@st.composite
def ips(draw: st.DrawFn) -> Ip:
    address: IpInterface = draw(V4 | V6)
    return Ip(address, draw(gateways(address.version)), draw(st.none() | st.integers(0, 5)))


@st.composite
def routes(draw: st.DrawFn) -> Route:
    dst = draw(V4 | V6).network
    return Route(
        dst,
        draw(gateways(dst.version)),
        mtu=draw(COUNTS),
        advmss=draw(COUNTS),
        priority=draw(COUNTS),
        table=draw(st.none() | COUNTS),
        scope=draw(st.none() | st.integers(0, 255)),
    )


DNS = st.builds(
    Dns,
    st.lists(NAMES).map(tuple),
    NAMES | st.just(""),
    st.lists(NAMES).map(tuple),
    st.lists(NAMES).map(tuple),
)
RESULTS = st.builds(
    Result,
    st.lists(INTERFACES, max_size=4).map(tuple),
    st.lists(ips(), max_size=4).map(tuple),
    st.lists(routes(), max_size=4).map(tuple),
    DNS,
)


def through(result: Result, version: str) -> Result:
    """Show, print and read back, as one plugin does for the next."""
    document: dict[str, Any] = json.loads(dumps(show_result(result, version)))
    assert document["cniVersion"] == version
    return parse_result(document, "")


@examples
@given(RESULTS)
def test_the_newest_version_keeps_everything(result: Result) -> None:
    """CNI spec 1.1.0, section 5: all that a result may hold."""
    assert through(result, "1.1.0") == result


@examples
@given(RESULTS, st.sampled_from([*MIDDLE_SHAPE, "1.0.0"]))
def test_older_versions_lose_only_what_interfaces_and_routes_got_in_1_1_0(
    result: Result, version: str
) -> None:
    """CNI spec 1.0.0, Result: interfaces have name, mac and sandbox, routes dst and gw; not so for IPAM."""
    kept = tuple(each._replace(mtu=0, socket_path="", pci_id="") for each in result.interfaces)
    routes = tuple(Route(each.dst, each.gw) for each in result.routes) if kept else result.routes
    assert through(result, version) == result._replace(interfaces=kept, routes=routes)


@examples
@given(RESULTS.filter(lambda result: bool(result.ips)), st.sampled_from(OLDEST_SHAPE))
def test_the_oldest_shape_keeps_the_first_address_of_each_family_and_its_routes(
    result: Result, version: str
) -> None:
    """CNI spec 0.2.0, Result: ip4 and ip6, each with ip, gateway and routes of dst and gw."""
    first = {ip.address.version: ip._replace(interface=None) for ip in reversed(result.ips)}
    families = sorted(first)
    kept = tuple(
        Route(route.dst, route.gw)
        for family in families
        for route in result.routes
        if route.dst.version == family
    )
    assert through(result, version) == Result(
        (), tuple(first[family] for family in families), kept, result.dns
    )


@examples
@given(
    RESULTS.filter(lambda result: bool(result.ips)),
    st.sampled_from(OLDEST_SHAPE + MIDDLE_SHAPE + NEWEST_SHAPE),
)
def test_a_second_passage_changes_nothing(result: Result, version: str) -> None:
    """A plugin passes the result that it was given to the next plugin in prevResult."""
    once = through(result, version)
    assert through(once, version) == once

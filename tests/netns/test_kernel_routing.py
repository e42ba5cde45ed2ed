"""Routes, source addresses, addresses without a route, and policy rules, as the kernel has them."""

from __future__ import annotations

from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import KernelError
from cni.kernel import addr, link, message_classes, netns, route, rule, veth
from cni.kernel.rtnetlink import Netlink
from cni.kernel.rule import Rule
from cni.result import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"
ADDRESSES = ("10.1.0.2/24", "10.1.0.3/24", "fd00::2/64", "fd00::3/64")


@contextmanager
def connected(path: str) -> Iterator[tuple[Netlink, int]]:
    """Make a link with addresses in a namespace. Yield the socket and the link's index.

    The link has no link-local address, because the kernel adds it and its route at a later time of its own.
    """
    with netns.open_netns(path) as ns, Netlink() as host, Netlink(ns) as inside:
        assert veth.create(host, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
        with ns.entered():
            Path("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode").write_text("1")
        end, index = link.get(host, "veth0"), link.get(inside, "eth0").index
        host.batch([link.set_flags("veth0", end.index, on=link.IFF_UP)])
        for address in ADDRESSES:
            addr.ensure(inside, "eth0", index, ip_interface(address))
        inside.batch([link.set_flags("eth0", index, on=link.IFF_UP)])
        yield inside, index


@pytest.mark.parametrize(
    "wanted",
    [
        Route(ip_network("10.2.0.0/16"), ip_address("10.1.0.1")),
        Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1"), priority=7),
        Route(ip_network("10.2.0.0/16"), scope=253),
        Route(ip_network("10.2.0.0/16"), ip_address("10.1.0.1"), table=1000, mtu=1300),
        Route(ip_network("fd01::/48"), ip_address("fd00::1")),
        Route(ip_network("::/0"), ip_address("fd00::1"), table=1000, priority=9),
    ],
)
def test_a_route_is_removed_and_no_other(host: Host, wanted: Route) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with connected(path) as (nl, index):
            others = route.list_routes(nl, 0)
            assert not route.remove(nl, "eth0", index, wanted)
            assert route.ensure(nl, "eth0", index, wanted)
            assert len(route.list_routes(nl, 0)) == len(others) + 1
            assert route.remove(nl, "eth0", index, wanted)
            assert sorted(map(str, route.list_routes(nl, 0))) == sorted(map(str, others))
            assert not route.remove(nl, "eth0", index, wanted)
            assert not route.remove(nl, "gone", 4711, wanted)

    host.call(run)


def test_a_route_that_was_listed_can_be_removed_and_put_into_another_table(host: Host) -> None:
    """The plugin sbr does this with all routes of a link, those of the kernel too."""
    path = host.sandbox("c1").path

    def run() -> None:
        with connected(path) as (nl, index):
            route.ensure(nl, "eth0", index, Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1")))
            listed = [each for each in route.list_routes(nl, index) if each.table == route.MAIN_TABLE]
            assert len(listed) >= 3
            for each in sorted(listed, key=lambda each: each.gw is not None):
                assert route.ensure(nl, "eth0", index, each._replace(table=100))
            for each in listed:
                assert route.remove(nl, "eth0", index, each)
            now = [each for each in route.list_routes(nl, index) if each.table == route.MAIN_TABLE]
            assert now == []
            moved = {(each.dst, each.gw) for each in route.list_routes(nl, index) if each.table == 100}
            assert moved == {(each.dst, each.gw) for each in listed}

    host.call(run)


@pytest.mark.parametrize(("subnet", "src"), [("10.9.0.0/16", "10.1.0.3"), ("fd09::/64", "fd00::3")])
def test_the_source_address_of_a_route_is_what_the_host_sends_from(host: Host, subnet: str, src: str) -> None:
    sandbox, source = host.sandbox("c1"), ip_address(src)
    inside_subnet = str(ip_network(subnet).network_address + 5)

    def run() -> None:
        with connected(sandbox.path) as (nl, index):
            wanted = Route(ip_network(subnet), ip_address("10.1.0.1" if "." in src else "fd00::1"))
            assert route.ensure(nl, "eth0", index, wanted, src=source)
            [shown] = [each for each in route.list_all(nl, index) if each.route.dst == wanted.dst]
            assert (shown.src, shown.link_index) == (source, index)
            own = [each for each in route.list_all(nl, index) if each.protocol == 2]
            assert own, "routes that come with addresses are the kernel's"

    host.call(run)
    [way] = sandbox.json(["ip", "-j", "route", "get", inside_subnet])
    assert way["prefsrc"] == src


@pytest.mark.parametrize("address", ["10.8.0.2/24", "fd08::2/64"])
def test_an_address_may_come_without_a_route(host: Host, address: str) -> None:
    path, wanted = host.sandbox("c1").path, ip_interface(address)

    def run() -> None:
        with connected(path) as (nl, index):
            nl.batch([addr.add("eth0", index, wanted, prefix_route=False)])
            shown = {each.address: each.has_prefix_route for each in addr.list_addrs(nl, index)}
            assert shown[wanted] is False
            assert all(shown[ip_interface(each)] for each in ADDRESSES)
            subnets = [each.dst for each in route.list_routes(nl, index) if each.table == route.MAIN_TABLE]
            assert wanted.network not in subnets
            assert ip_interface(ADDRESSES[0]).network in subnets
            # Usable at once, as one with a route.
            assert not any(each.is_tentative for each in addr.list_addrs(nl, index) if each.is_global)

    host.call(run)


RULES = [
    Rule(4, 100, src=ip_network("10.1.0.2/32")),
    Rule(4, 1000, src=ip_network("10.1.0.0/24"), dst=ip_network("10.9.0.0/16"), priority=500),
    Rule(4, 101, iif="eth0", priority=501),
    Rule(4, 102, oif="eth0", mark=0x10, mask=0xF0, priority=502),
    Rule(4, 103, mark=7, mask=0xFFFFFFFF, priority=503),
    Rule(6, 100, src=ip_network("fd00::2/128")),
    Rule(6, 70000, dst=ip_network("fd09::/64"), iif="eth0", priority=504),
]


@pytest.mark.parametrize("wanted", RULES, ids=str)
def test_a_rule_is_added_listed_and_removed(host: Host, wanted: Rule) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with connected(path) as (nl, _):
            before = rule.list_rules(nl)
            assert {(each.version, each.table) for each in before} >= {(4, 255), (4, 254), (6, 255), (6, 254)}
            assert not rule.remove(nl, wanted)
            assert rule.ensure(nl, wanted)
            assert not rule.ensure(nl, wanted)
            [shown] = [each for each in rule.list_rules(nl, wanted.version) if each not in before]
            assert shown._replace(priority=wanted.priority) == wanted
            assert wanted.priority in {0, shown.priority}
            assert rule.remove(nl, wanted)
            assert not rule.remove(nl, wanted)
            assert rule.list_rules(nl) == before

    host.call(run)


def test_a_rule_leads_to_its_table(host: Host) -> None:
    sandbox = host.sandbox("c1")

    def look_up(source: str) -> str:
        [way] = sandbox.json(["ip", "-j", "route", "get", "10.9.0.1", "from", source])
        return str(way["gateway"])

    def add() -> None:
        with connected(sandbox.path) as (nl, index):
            route.ensure(nl, "eth0", index, Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1")))
            way = Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.9"), table=100)
            route.ensure(nl, "eth0", index, way)
            rule.ensure(nl, RULES[0])

    def remove() -> None:
        with netns.open_netns(sandbox.path) as ns, Netlink(ns) as nl:
            assert rule.remove(nl, RULES[0])

    host.call(add)
    assert (look_up("10.1.0.2"), look_up("10.1.0.3")) == ("10.1.0.9", "10.1.0.1")
    host.call(remove)
    assert look_up("10.1.0.2") == "10.1.0.1"


def test_a_refused_rule_is_reported_in_words(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            nl.batch([rule.add(Rule(4, 100, iif="a-name-that-is-too-long"))])

    with pytest.raises(KernelError) as caught:
        host.call(run)
    assert caught.value.msg.startswith(
        "failed to add rule 'from all iif a-name-that-is-too-long lookup 100': "
    )


@pytest.mark.parametrize("wanted", RULES, ids=str)
def test_a_rule_is_what_pyroute2_reads(wanted: Rule) -> None:
    message = rule.add(wanted)
    shown = message_classes.decode(message.kind, message.body)
    lengths = [network.prefixlen if network else 0 for network in (wanted.dst, wanted.src)]
    assert [shown["dst_len"], shown["src_len"]] == lengths
    attrs = {
        "FRA_TABLE": wanted.table,
        "FRA_DST": wanted.dst and str(wanted.dst.network_address),
        "FRA_SRC": wanted.src and str(wanted.src.network_address),
        "FRA_PRIORITY": wanted.priority,
        "FRA_IIFNAME": wanted.iif,
        "FRA_OIFNAME": wanted.oif,
        "FRA_FWMARK": wanted.mark,
        "FRA_FWMASK": wanted.mask,
    }
    assert {name: value for name, value, *_ in shown["attrs"]} == {
        name: value for name, value in attrs.items() if value
    }

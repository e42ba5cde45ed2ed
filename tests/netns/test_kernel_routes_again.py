"""A listed route is read as pyroute2 reads it, and can be removed and added again as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import link, message_classes, netns, route, rtnetlink, rule
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

LINES = [
    "addr add 10.1.0.2/24 dev eth0",
    "addr add 10.1.0.3/24 dev eth0",
    "-6 addr add fd01::2/64 dev eth0 nodad",
    "-6 addr add fd01::3/64 dev eth0 nodad",
    "addr add 10.2.0.2/24 dev eth1",
    "-6 addr add fd02::2/64 dev eth1 nodad",
    *(f"link set {name} up" for name in ("lo", "eth0", "eth1", "far0", "far1")),
]
# Each is one route by eth0 only; several lines make several.
ROUTES = [
    "route add default via 10.1.0.1 mtu 1400 proto dhcp",
    "route add 10.3.0.0/16 dev eth0 src 10.1.0.3 metric 5 scope link initcwnd 20",
    "route add 10.4.0.0/16 via 172.16.0.1 dev eth0 onlink table 70000",
    "route add 10.5.0.0/16 via inet6 fd01::1 dev eth0",
    "route add 10.6.0.0/16 via 10.1.0.1 realm 7 advmss 1200",
    "route add 10.7.0.0/16 tos 0x10 via 10.1.0.1",
    "-6 route add default via fd01::1 pref low proto static",
    "-6 route add fd03::/64 dev eth0 src fd01::3 metric 9 mtu 1300 table 200",
]
SHARED = [
    "route add 10.8.0.0/16 nexthop via 10.1.0.1 weight 2 nexthop via 10.2.0.1",
    "-6 route add fd08::/64 nexthop via fd01::1 nexthop via fd02::1",
]


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    sandbox = host.sandbox("c1")
    sandbox.run(["sysctl", "-q", "-w", "net.ipv6.conf.default.addr_gen_mode=1"])
    for number in (0, 1):
        sandbox.run(["ip", "link", "add", f"eth{number}", "type", "veth", "peer", "name", f"far{number}"])
    for line in LINES:
        sandbox.run(["ip", *line.split()])
    return sandbox


def show(sandbox: Sandbox) -> list[str]:
    """List the routes without what the kernel changes later by itself: table "local", flags of carriers."""
    shown = [sandbox.run(["ip", "-d", each, "route", "show", "table", "all"]) for each in ("-4", "-6")]
    lines = [line.replace(" linkdown", "") for each in shown for line in each.splitlines()]
    return sorted(line for line in lines if "table local" not in line)


@pytest.mark.parametrize("line", [*ROUTES, SHARED[1]])
def test_a_route_comes_back_as_it_was(host: Host, sandbox: Sandbox, line: str) -> None:
    sandbox.run(["ip", *line.split()])
    wanted = line.split()[line.split().index("add") + 1]
    before = show(sandbox)
    path = sandbox.path

    def find(nl: Netlink) -> list[route.KernelRoute]:
        index = link.get(nl, "eth0").index
        every = [each for each in route.list_all(nl, index) if each.protocol != 2]
        return [each for each in every if str(each.route.dst) == wanted or not each.route.dst.prefixlen]

    def take_out() -> bytes:
        with netns.open_netns(path) as ns, Netlink(ns) as nl:
            [one] = find(nl)
            assert route.decode(one.encoded) == one
            nl.batch([route.again("eth0", one.encoded, 100)])
            [copied] = [each for each in find(nl) if each.route.table == 100]
            assert copied[:4] == (one.route._replace(table=100), *one[1:4])
            nl.batch([route.remove_exactly("eth0", each.encoded) for each in (one, copied)])
            assert find(nl) == []
            return one.encoded

    def put_back() -> None:
        with netns.open_netns(path) as ns, Netlink(ns) as nl:
            nl.batch([route.again("eth0", encoded)])

    encoded = host.call(take_out)
    assert len(show(sandbox)) < len(before) or "nexthop" in line
    host.call(put_back)
    assert show(sandbox) == before


def test_lists_are_what_pyroute2_reads(host: Host, sandbox: Sandbox) -> None:
    for line in [*ROUTES, *SHARED]:
        sandbox.run(["ip", *line.split()])
    for line in ("rule add fwmark 5/0xff lookup 70000", "-6 rule add from fd01::/64 iif eth0 lookup 7"):
        sandbox.run(["ip", *line.split()])
    path = sandbox.path

    def list_both() -> None:
        with netns.open_netns(path) as ns, Netlink(ns) as nl:
            ours = sorted(map(_values, route.list_all(nl, 0)))
            assert ours == sorted(
                each for one in _dump(nl, rtnetlink.RTM_GETROUTE) for each in _of_route(one)
            )
            rules = [
                (each.table, each.priority, each.mark, each.mask, each.iif) for each in rule.list_rules(nl)
            ]
            assert rules == [_of_rule(each) for each in _dump(nl, rtnetlink.RTM_GETRULE)]

    host.call(list_both)


def test_one_of_ipv4_through_several_links_has_no_message(host: Host, sandbox: Sandbox) -> None:
    sandbox.run(["ip", *SHARED[0].split()])
    path = sandbox.path

    def list_them() -> list[tuple[str, bytes]]:
        with netns.open_netns(path) as ns, Netlink(ns) as nl:
            return [(str(each.route.gw), each.encoded) for each in route.list_all(nl, 0) if each.route.gw]

    assert host.call(list_them) == [("10.1.0.1", b""), ("10.2.0.1", b"")]


@pytest.mark.parametrize(
    "garbage", [b"", b"x" * 11, b"\2" * 12, b"\2\x21" + bytes(10), bytes(200), b"\xff" * 64]
)
def test_garbage_is_no_route(garbage: bytes) -> None:
    assert route.decode(garbage) is None


def _values(one: route.KernelRoute) -> tuple[Any, ...]:
    own = one.route
    gateway, src = str(own.gw or ""), str(one.src or "")
    return (
        str(own.dst),
        gateway,
        own.priority,
        own.mtu,
        own.advmss,
        own.table,
        own.scope,
        src,
        one.link_index,
        one.protocol,
    )


def _dump(nl: Netlink, kind: int) -> list[Any]:
    found = []
    for family in (2, 10):
        message = Message("list", kind, fields={"family": family})
        found += [message_classes.decode(kind, each) for each in nl.dump(message)]
    return found


def _of_route(shown: Any) -> list[tuple[Any, ...]]:
    """Return a tuple for each link of a unicast route."""
    if shown["type"] != 1 or shown["flags"] & 0x200:
        return []
    metrics = shown.get_attr("RTA_METRICS")
    mtu, advmss = ((metrics.get_attr(name) or 0) if metrics else 0 for name in ("RTAX_MTU", "RTAX_ADVMSS"))
    every = "0.0.0.0" if shown["family"] == 2 else "::"  # noqa: S104 - a destination
    dst = f"{shown.get_attr('RTA_DST') or every}/{shown['dst_len']}"
    table = shown.get_attr("RTA_TABLE") or shown["table"]
    rest = (
        shown.get_attr("RTA_PRIORITY") or 0,
        mtu,
        advmss,
        table,
        shown["scope"],
        shown.get_attr("RTA_PREFSRC") or "",
    )
    hops = [(each.get_attr("RTA_GATEWAY"), each["oif"]) for each in shown.get_attr("RTA_MULTIPATH") or ()]
    hops = hops or [(shown.get_attr("RTA_GATEWAY"), shown.get_attr("RTA_OIF"))]
    return [(dst, gateway or "", *rest, index, shown["proto"]) for gateway, index in hops]


def _of_rule(shown: Any) -> tuple[Any, ...]:
    mark = shown.get_attr("FRA_FWMARK") or 0
    table = shown.get_attr("FRA_TABLE") or shown["table"]
    mask, iif = shown.get_attr("FRA_FWMASK") or 0, shown.get_attr("FRA_IIFNAME") or ""
    return (table, shown.get_attr("FRA_PRIORITY") or 0, mark, mask if mark else 0, iif)

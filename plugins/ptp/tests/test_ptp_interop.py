"""Debian's Go ptp and ours on the same attachments: equal results, ADD by one, CHECK and DEL by the other."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "ptp").exists(), reason="containernetworking-plugins is not installed"),
]

ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
V4, MORE, V6 = [{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}], [{"subnet": "fd01::/64"}]
CONFS: dict[str, dict[str, Any]] = {
    "IPv4": {"ipam": {"type": "host-local", "ranges": [V4], "routes": ROUTES[:1]}},
    "IPv6": {"ipam": {"type": "host-local", "ranges": [V6], "routes": ROUTES[1:]}},
    "two subnets and IPv6": {"ipam": {"type": "host-local", "ranges": [V4, MORE, V6], "routes": ROUTES}},
    "masquerade": {"ipMasq": True, "mtu": 1400, "dns": {"nameservers": ["10.1.0.1"]}},
}
# What is random in a result or in what `ip` shows: MAC addresses, link-local addresses, the host end's name.
_RANDOM = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|fe80::[0-9a-f:]+|veth[0-9a-f]{8}")


def network(host: Host, conf: dict[str, Any]) -> Network:
    net = Network(host, "ptp", cniVersion="1.0.0", **conf)
    del net.conf["bridge"]
    return net


def made(host: Host, net: Network, bindir: Path | None) -> tuple[Any, list[str]]:
    """Attach a container; return its result, addresses and routes without what is random, and detach it."""
    one = net.add("c1", bindir=bindir)
    # The Go plugin writes empty members that the spec allows to be absent.
    result = {key: value for key, value in one.answer.json.items() if value}
    taken = host.snapshot()
    lines = [
        re.sub(r'"(?:nodad|noprefixroute)": true, ', "", line)
        for line in (*taken.addresses, *taken.routes)
        if "fe80" not in line
    ]
    shown = json.loads(_RANDOM.sub("RANDOM", json.dumps(result)))
    found = sorted(_RANDOM.sub("RANDOM", line) for line in lines)
    net.delete("c1", bindir=bindir)
    one.sandbox.delete()
    host.run(["rm", "-r", "/var/lib/cni/networks"])
    return shown, found


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_result_addresses_and_routes_are_those_of_go(host: Host, conf: dict[str, Any]) -> None:
    net = network(host, conf)
    assert made(host, net, OURS) == made(host, net, GO)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, conf: dict[str, Any], *, go_adds: bool
) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    net = network(host, conf)
    for each in (GO, OURS):
        # Go's ADD waits up to 2 s for duplicate address detection.
        host.sandbox("first").run(["sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0"])
        net.call("ADD", "first", bindir=each).must()
        net.delete("first", bindir=each)
        host.run(["ip", "netns", "del", "first"])
    host.sandbox("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1", bindir=maker)
    keys = {"prevResult": answer.must()}
    for each in (other, maker):
        net.call("CHECK", "c1", bindir=each, keys=keys).must()
    net.delete("c1", bindir=other, keys=keys)
    assert before.differences(host.snapshot()) == []


def test_the_other_suites_check_sees_a_missing_address(host: Host) -> None:
    for maker, other in ((GO, OURS), (OURS, GO)):
        net = network(host, CONFS["IPv4"])
        one = net.add("c1", bindir=maker)
        one.sandbox.run(["ip", "addr", "flush", "dev", "eth0"])
        assert not net.check(one, bindir=other).ok
        net.delete("c1", bindir=other)
        one.sandbox.delete()


def test_ours_removes_a_go_masquerade_when_the_namespace_is_gone(host: Host) -> None:
    net = network(host, CONFS["masquerade"])
    net.add("first")
    net.delete("first")
    host.run(["ip", "netns", "del", "first"])
    before = host.snapshot()
    net.add("c1", bindir=GO).sandbox.delete()
    net.delete("c1", netns="")
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize("go_first", [True, False], ids=["go-first", "we-first"])
def test_containers_of_both_suites_reach_each_other(host: Host, *, go_first: bool) -> None:
    net = network(host, CONFS["IPv4"])
    one = net.add("c1", bindir=GO if go_first else OURS)
    two = net.add("c2", bindir=OURS if go_first else GO)
    with two.sandbox.serve(80):
        assert one.sandbox.dial(two.address, 80).address == one.address

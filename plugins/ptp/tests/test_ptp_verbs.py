"""All verbs of the ptp plugin on real hosts: what it makes, compares, restores and removes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import link
from cni.testing.network import GATEWAY, GATEWAY6, SUBNET, Network

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.network import Attached

BACKENDS = ("iptables", "nftables")
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
RANGES = [[{"subnet": SUBNET}], [{"subnet": "10.2.0.0/24"}], [{"subnet": "fd01::/64"}]]
IPAM = {"type": "host-local", "ranges": RANGES, "routes": ROUTES}
V4 = {"type": "host-local", "subnet": SUBNET}


def network(host: Host, **keys: Any) -> Network:
    net = Network(host, "ptp", **{"ipam": IPAM, "mtu": 1400, **keys})
    del net.conf["bridge"]
    return net


def host_end(one: Attached) -> str:
    return str(one.answer.json["interfaces"][0]["name"])


def test_the_result_names_both_ends_and_the_gateways(host: Host) -> None:
    one = network(host, dns={"nameservers": ["10.1.0.1"]}).add("c1")
    result = one.answer.json
    outer, inner = result["interfaces"]
    assert (inner["name"], inner["sandbox"], inner["mtu"]) == ("eth0", one.sandbox.path, 1400)
    assert (outer["name"][:4], outer.get("sandbox"), outer["mtu"]) == ("veth", None, 1400)
    assert [(each["address"], each["gateway"], each["interface"]) for each in result["ips"]] == [
        ("10.1.0.2/24", "10.1.0.1", 1),
        ("10.2.0.2/24", "10.2.0.1", 1),
        ("fd01::2/64", "fd01::1", 1),
    ]
    assert [each["dst"] for each in result["routes"]] == ["0.0.0.0/0", "::/0"]
    assert result["dns"] == {"nameservers": ["10.1.0.1"]}
    assert host.addresses(outer["name"]) == ["10.1.0.1/32", "10.2.0.1/32", "fd01::1/128"]


def test_containers_reach_each_other_the_host_and_the_outside(host: Host) -> None:
    outside = host.outside
    net = network(host, ipMasq=True)
    one, two = net.add("c1"), net.add("c2")
    with two.sandbox.serve(80), host.serve(81), outside.sandbox.serve(82):
        assert one.sandbox.dial(two.address, 80).address == one.address
        assert one.sandbox.dial(two.address6, 80).address == one.address6
        assert one.sandbox.dial(GATEWAY, 81).address == one.address
        assert one.sandbox.dial(GATEWAY6, 81).address == one.address6
        assert host.dial(two.address, 80).address == GATEWAY
        assert host.dial(two.address6, 80).address == GATEWAY6
        assert one.sandbox.dial(outside.address, 82).address == outside.host_address
        assert one.sandbox.dial(outside.address6, 82).address == outside.host_address6


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_goes_with_del_which_may_be_called_again(host: Host, backend: str) -> None:
    net = network(host, ipMasq=True, ipMasqBackend=backend)
    net.add("first")
    net.delete("first")
    host.sandbox("c1")
    host.sandbox("c2")
    before = host.snapshot()
    for name in ("c1", "c2"):
        net.call("ADD", name).must()
    for name, netns in (("c1", None), ("c2", "/run/netns/none")):
        for _ in range(2):
            net.delete(name, netns=netns)
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_del_without_a_namespace_removes_what_is_on_the_host(host: Host, backend: str) -> None:
    net = network(host, ipMasq=True, ipMasqBackend=backend)
    net.add("first")
    net.delete("first")
    host.run(["ip", "netns", "del", "first"])
    before = host.snapshot()
    net.add("c1").sandbox.delete()
    for netns in ("", "/run/netns/c1"):
        net.delete("c1", netns=netns)
    assert before.differences(host.snapshot()) == []


NO_WAY = {"type": "host-local", "subnet": SUBNET, "routes": [{"dst": "10.9.0.0/16", "gw": "99.0.0.1"}]}
FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no IPAM": ({"ipam": {}}, 7, "no plugin name provided"),
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, 7, 'failed to find plugin "nowhere"'),
    "a route that cannot be": ({"ipam": NO_WAY}, 100, "failed to add route '10.9.0.0/16 via 99.0.0.1"),
    "an unknown backend": ({"ipMasqBackend": "foo", "ipMasq": True}, 7, 'unknown ipmasq backend "foo"'),
    "a negative MTU": ({"mtu": -5}, 7, '"mtu" must be a whole number from 0 to 65535, got -5'),
    "an MTU too small": ({"mtu": 5}, 100, "failed to make veth pair"),
}


@pytest.mark.parametrize(("keys", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_an_add_that_fails_leaves_nothing(host: Host, keys: dict[str, Any], code: int, message: str) -> None:
    host.sandbox("c1")
    before = host.snapshot()
    answer = network(host, **keys).call("ADD", "c1")
    assert answer.code == code
    assert message in answer.msg
    assert before.differences(host.snapshot()) == []


def test_a_second_add_does_not_harm_the_first(host: Host) -> None:
    net = network(host, ipMasq=True)
    one = net.add("c1")
    before = host.snapshot()
    assert net.call("ADD", "c1").msg.startswith('container veth name ("eth0") peer provided ("veth')
    assert before.differences(host.snapshot()) == []
    net.check(one).must()


DAMAGES = {
    "address": (
        "c1",
        "ip addr del 10.1.0.2/24 dev eth0",
        "Failed to match addr 10.1.0.2/24 on interface eth0",
    ),
    "route": ("c1", "ip route del default", "Expected Route {Dst: 0.0.0.0/0, GW: None} not found"),
    "way to the gateway": (
        "c1",
        "ip -6 route del fd01::1/128",
        "Expected Route {Dst: fd01::1/128, GW: None}",
    ),
    "way to the subnet": (
        "c1",
        "ip route del 10.1.0.0/24",
        "Expected Route {Dst: 10.1.0.0/24, GW: 10.1.0.1}",
    ),
    "container down": ("c1", "ip link set eth0 down", "Interface eth0 is down"),
    "container MAC": (
        "c1",
        "ip link set eth0 address 02:00:00:00:00:09",
        "Interface eth0 Mac 02:00:00:00:00:09",
    ),
    "host end down": ("", "ip link set HOST down", "Interface HOST is down"),
    "host MTU": ("", "ip link set HOST mtu 1300", "Interface HOST has MTU 1300, not 1400"),
    "bridge": ("", "ip link set HOST master spare", "Interface HOST is a port of a bridge"),
    "alias": ("", "ip link set HOST alias x", 'has alias "x"'),
    "gateway": ("", "ip addr del 10.1.0.1/32 dev HOST", "Failed to match addr 10.1.0.1/32 on interface HOST"),
    "gateway of IPv6": ("", "ip addr del fd01::1/128 dev HOST", "Failed to match addr fd01::1/128 on"),
    "host route": ("", "ip route del 10.1.0.2/32", "Expected Route {Dst: 10.1.0.2/32, GW: None} not found"),
    "host route of IPv6": ("", "ip -6 route del fd01::2/128", "Expected Route {Dst: fd01::2/128, GW: None}"),
    "forwarding": ("", "sysctl -w net.ipv4.ip_forward=0", "this host does not forward IPv4"),
    "masquerade": ("", "nft flush ruleset", "masquerading of 10.1.0.2"),
    "lease": ("", "rm /var/lib/cni/networks/net1/fd01::2", "address fd01::2 has no lease"),
}


@pytest.mark.parametrize(("where", "damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_check_names_each_damage_and_repair_restores_it(
    host: Host, where: str, damage: str, message: str
) -> None:
    net = network(host, ipMasq=True, ipMasqBackend="nftables")
    one = net.add("c1")
    host.run(["ip", "link", "add", "spare", "address", "02:00:00:00:00:05", "type", "bridge"])
    net.check(one).must()
    before = host.snapshot()
    place = one.sandbox if where else host
    place.run(damage.replace("HOST", host_end(one)).split())
    answer = net.check(one)
    assert answer.code == 104
    assert message.replace("HOST", host_end(one)) in answer.text
    keys = {"prevResult": one.answer.json}
    repaired = net.call("PYCNI_REPAIR", "c1", keys=keys).must()
    assert repaired["repaired"]
    assert repaired["failed"] == []
    net.check(one).must()
    assert [each for each in before.differences(host.snapshot()) if "fe80" not in each] == []
    with one.sandbox.serve(80):
        assert host.reaches(one.address, 80, timeout_s=3)
        assert host.reaches(one.address6, 80, timeout_s=3)


def test_repair_refuses_a_pair_that_is_gone(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "del", "eth0"])
    answer = net.repair(one)
    assert answer.code == 104
    assert "the veth pair of eth0 in /run/netns/c1 is gone" in answer.msg


def collect(net: Network, *names: str) -> None:
    valid = [{"containerID": each, "ifname": "eth0"} for each in names]
    keys = {"cni.dev/valid-attachments": valid}
    planned = net.call("PYCNI_GC_PLAN", "", netns="", keys=keys, ifname="").must()["stale"]
    answer = net.call("GC", "", netns="", keys=keys, ifname="")
    answer.must()
    assert answer.stderr.count("gc removes") == len(planned)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gc_removes_what_is_not_valid_and_nothing_else(host: Host, backend: str) -> None:
    net = network(host, ipMasq=True, ipMasqBackend=backend)
    kept = net.add("kept")
    host.sandbox("c1")
    before = host.snapshot()
    net.call("ADD", "c1").must()
    collect(net, "kept")
    assert before.differences(host.snapshot()) == []
    net.check(kept).must()


def test_gc_and_del_remove_a_pair_whose_add_was_killed(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    name = host_end(one)
    net.delete("c1")
    half = f"ip link add {name} group {link.UNFINISHED} type veth peer name eth0 netns c1"
    host.run(half.split())
    collect(net)
    assert one.sandbox.links() == ["lo"]
    host.run(half.split())
    net.delete("c1", netns="")
    assert one.sandbox.links() == ["lo"]


IMPAIRMENTS = {
    "down": ("ip link set HOST down", "links of containers are down: HOST"),
    "addresses": (
        "ip addr flush dev HOST scope global",
        "links of containers have lost the gateway's addresses",
    ),
    "routes": ("ip route del 10.1.0.2/32", "routes to containers are gone: HOST"),
    "forwarding": ("sysctl -w net.ipv4.ip_forward=0", "this host does not forward IPv4: sysctl"),
    "masquerade": ("nft flush ruleset", "masquerading is gone of: c1 eth0"),
}


@pytest.mark.parametrize(("damage", "message"), IMPAIRMENTS.values(), ids=IMPAIRMENTS)
def test_status_reports_what_cuts_containers_off(host: Host, damage: str, message: str) -> None:
    net = network(host, ipam=V4, ipMasq=True, ipMasqBackend="nftables")
    net.call("STATUS", "", netns="").must()
    one = net.add("c1")
    net.call("STATUS", "", netns="").must()
    host.run(damage.replace("HOST", host_end(one)).split())
    answer = net.call("STATUS", "", netns="")
    assert answer.code == 51
    assert answer.msg.startswith(message.replace("HOST", host_end(one)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ipam": {"type": "nowhere"}}, 'failed to find plugin "nowhere"'),
        ({"ipam": {}}, "no plugin name provided"),
        ({"ipMasq": True, "ipMasqBackend": "foo"}, 'unknown ipmasq backend "foo"'),
    ],
)
def test_status_reports_why_an_add_would_fail(host: Host, keys: dict[str, Any], message: str) -> None:
    answer = network(host, **keys).call("STATUS", "", netns="")
    assert answer.code == 50
    assert answer.msg.startswith(message)

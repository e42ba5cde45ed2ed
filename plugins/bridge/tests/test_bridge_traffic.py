"""Real packets over the bridge: between containers, to the host and to the outside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import GATEWAY, GATEWAY6, Network

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

GATEWAY_KEYS: dict[str, Any] = {"isDefaultGateway": True}


def test_containers_and_the_host_reach_each_other_in_both_families(host: Host) -> None:
    net = Network(host, **GATEWAY_KEYS)
    one, two = net.add("c1"), net.add("c2")
    with two.sandbox.serve(80), host.serve(81):
        assert one.sandbox.dial(two.address, 80).address == one.address
        assert one.sandbox.dial(two.address6, 80).address == one.address6
        assert host.dial(two.address, 80).address == GATEWAY
        assert host.dial(two.address6, 80).address == GATEWAY6
        assert one.sandbox.dial(GATEWAY, 81).address == one.address
        assert one.sandbox.dial(GATEWAY6, 81).address == one.address6


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_the_outside_sees_the_host_where_containers_are_masqueraded(host: Host, backend: str) -> None:
    outside = host.outside
    net = Network(host, **GATEWAY_KEYS, ipMasq=True, ipMasqBackend=backend)
    one, two = net.add("c1"), net.add("c2")
    with outside.sandbox.serve(80), two.sandbox.serve(80):
        assert one.sandbox.dial(outside.address, 80).address == outside.host_address
        assert one.sandbox.dial(outside.address6, 80).address == outside.host_address6
        assert one.sandbox.dial(two.address, 80).address == one.address
    net.delete("c1")
    net.delete("c2")
    gone = (one.address, one.address6, two.address, two.address6)
    assert not [rule for rule in host.snapshot().rules if any(f'"{each}"' in rule for each in gone)]


def test_without_masquerade_the_outside_must_know_the_way(host: Host) -> None:
    outside = host.outside
    one = Network(host, **GATEWAY_KEYS).add("c1")
    with outside.sandbox.serve(80):
        assert not one.sandbox.reaches(outside.address, 80)
        outside.sandbox.run(["ip", "route", "add", "10.1.0.0/24", "via", outside.host_address])
        assert one.sandbox.dial(outside.address, 80).address == one.address


def test_a_network_without_gateway_is_internal(host: Host) -> None:
    net = Network(host)
    one, two = net.add("c1"), net.add("c2")
    assert host.addresses("br0") == []
    with two.sandbox.serve(80), host.outside.sandbox.serve(80):
        assert one.sandbox.reaches(two.address, 80, timeout_s=10)
        assert not one.sandbox.reaches(host.outside.address, 80)


def test_isolated_ports_reach_the_host_but_not_each_other(host: Host) -> None:
    net = Network(host, **GATEWAY_KEYS, portIsolation=True)
    one, two = net.add("c1"), net.add("c2")
    with two.sandbox.serve(80), host.serve(81):
        assert not one.sandbox.reaches(two.address, 80)
        assert one.sandbox.reaches(GATEWAY, 81, timeout_s=10)


def test_a_spoofed_mac_address_is_dropped(host: Host) -> None:
    net = Network(host, **GATEWAY_KEYS, macspoofchk=True)
    before = host.snapshot().rules
    one = net.add("c1")
    with host.serve(81):
        assert one.sandbox.reaches(GATEWAY, 81, timeout_s=10)
        one.sandbox.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"])
        one.sandbox.run(["ip", "route", "replace", "default", "via", GATEWAY])
        assert not one.sandbox.reaches(GATEWAY, 81)
    net.delete("c1")
    assert not [rule for rule in host.snapshot().rules if "c1" in rule]
    assert not [rule for rule in before if "c1" in rule]


def test_neighbours_learn_at_once_who_has_an_address_now(host: Host) -> None:
    net = Network(host, **GATEWAY_KEYS)
    peer = net.add("peer")
    for name, mac in (("c1", "02:00:00:00:00:01"), ("c2", "02:00:00:00:00:02")):
        keys = {"runtimeConfig": {"mac": mac, "ips": ["10.1.0.77", "fd01::77"]}}
        one = net.add(name, keys=keys)
        assert one.answer.addresses == ["10.1.0.77", "fd01::77"]
        if name == "c1":
            with one.sandbox.serve(80):
                assert peer.sandbox.reaches("10.1.0.77", 80, timeout_s=10)
                assert peer.sandbox.reaches("fd01::77", 80, timeout_s=10)
            net.delete(name, keys=keys)
            continue
        for address in ("10.1.0.77", "fd01::77"):
            # The kernel passes it on when it has time; without being told, the peer asks after 15 s or more.
            deadline = time.monotonic() + 14
            while (known := _neighbour(peer.sandbox, address)) != mac:
                assert time.monotonic() < deadline, f"{address} is {known}"
                time.sleep(0.02)


def _neighbour(sandbox: Sandbox, address: str) -> str:
    [entry] = sandbox.json(["ip", "-j", "neigh", "show", address])
    return str(entry["lladdr"])


def test_route_settings_of_ipam_are_applied(host: Host) -> None:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}]],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1200},
            {"dst": "10.8.0.0/16", "gw": "10.1.0.9", "priority": 7, "table": 1000},
            {"dst": "10.7.0.0/16", "scope": 0},
        ],
    }
    one = Network(host, **GATEWAY_KEYS, ipam=ipam).add("c1")
    routes = one.sandbox.json(["ip", "-j", "route", "show", "table", "all", "type", "unicast"])
    shown = {route["dst"]: route for route in routes}
    assert [route["gateway"] for route in routes if route["dst"] == "default"] == [GATEWAY]
    assert shown["10.9.0.0/16"]["metrics"] == [{"mtu": 1300, "advmss": 1200}]
    assert shown["10.8.0.0/16"]["gateway"] == "10.1.0.9"
    assert (shown["10.8.0.0/16"]["metric"], shown["10.8.0.0/16"]["table"]) == (7, "1000")
    assert shown["10.7.0.0/16"]["gateway"] == GATEWAY


def test_ipv6_addresses_are_usable_at_once(host: Host) -> None:
    one = Network(host, **GATEWAY_KEYS).add("c1")
    for inside, link in ((host, "br0"), (one.sandbox, "eth0")):
        [shown] = inside.json(["ip", "-j", "addr", "show", "dev", link])
        tentative = [
            each for each in shown["addr_info"] if each.get("tentative") and each["scope"] == "global"
        ]
        assert tentative == []


def test_enabledad_waits_until_the_addresses_are_checked(host: Host) -> None:
    one = Network(host, **GATEWAY_KEYS, enabledad=True, hairpinMode=True).add("c1")
    [shown] = one.sandbox.json(["ip", "-j", "addr", "show", "dev", "eth0"])
    assert not [each for each in shown["addr_info"] if each.get("tentative") or each.get("nodad")]
    assert one.sandbox.run(["sysctl", "-n", "net.ipv6.conf.eth0.enhanced_dad"]).strip() == "1"


def test_a_duplicate_address_is_told_where_it_is_looked_for(host: Host) -> None:
    net = Network(host, **GATEWAY_KEYS, enabledad=True)
    other = net.add("c1")
    other.sandbox.run(["ip", "addr", "add", "fd01::77/64", "dev", "eth0", "nodad"])
    before = host.snapshot()
    host.sandbox("c2")
    answer = net.call("ADD", "c2", keys={"runtimeConfig": {"ips": ["fd01::77"]}})
    assert answer.msg == "link eth0 has address fd01::77 in DADFAILED state"
    host.run(["ip", "netns", "delete", "c2"])
    assert before.differences(host.snapshot()) == []

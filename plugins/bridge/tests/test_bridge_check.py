"""CHECK and STATUS: each thing that is changed behind the plugin's back is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host

FULL: dict[str, Any] = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True, "mtu": 1400}


MAC = "02:00:00:00:00:09"
LEASES = "/var/lib/cni/networks/net1"
INSIDE = {
    "address": ("ip addr del 10.1.0.2/24 dev eth0", "Failed to match addr 10.1.0.2/24 on"),
    "route": ("ip route del default", "Expected Route {Dst: 0.0.0.0/0, GW: 10.1.0.1} not found"),
    "IPv6 off": ("sysctl -w net.ipv6.conf.eth0.disable_ipv6=1", "IPv6 is switched off in"),
    "container down": ("ip link set eth0 down", "Interface eth0 is down"),
    "container MAC": (f"ip link set eth0 address {MAC}", f"Interface eth0 Mac {MAC} doesn't match"),
    "container gone": ("ip link del eth0", "Interface eth0 does not exist in"),
}
OUTSIDE = {
    "host MTU": ("ip link set HOST_END mtu 1300", "has MTU 1300, not 1400"),
    "host end off the bridge": ("ip link set HOST_END nomaster", "is not a port of bridge br0"),
    "hairpin": ("bridge link set dev HOST_END hairpin on", "has hairpin mode on"),
    "learning": ("bridge link set dev HOST_END learning off", "has learning off"),
    "flooding": ("bridge link set dev HOST_END flood off", "has flooding off"),
    "alias": ("ip link set HOST_END alias x", 'has alias "x"'),
    "router advertisements": ("sysctl -w net/ipv6/conf/HOST_END/accept_ra=1", "accept_ra is not 0"),
    "isolation": ("bridge link set dev HOST_END isolated on", "has isolation on"),
    "promiscuous mode": ("ip link set br0 promisc on", "configured Promisc Mode false doesn't match"),
    "bridge address": ("ip addr del 10.1.0.1/24 dev br0", "Failed to match addr 10.1.0.1/24, the gateway's"),
    "bridge MAC": (f"ip link set br0 address {MAC}", f"has MAC address {MAC}"),
    "bridge down": ("ip link set br0 down", "Bridge interface br0 is down"),
    "bridge gone": ("ip link del br0", "Interface br0 of the host does not exist"),
    "forwarding": ("sysctl -w net.ipv4.ip_forward=0", "this host does not forward IPv4"),
    "spoof check": ("nft flush table bridge nat", "the MAC spoof check"),
    "masquerade": ("iptables -t nat -F", "CNI-"),
    "lease of one family": (f"rm {LEASES}/fd01::2", "address fd01::2 has no lease"),
    "lease": (f"rm {LEASES}/10.1.0.2 {LEASES}/fd01::2", "host-local"),
}


@pytest.mark.parametrize(("damage", "told"), INSIDE.values(), ids=INSIDE)
def test_check_tells_what_differs_in_the_container(host: Host, damage: str, told: str) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    net.check(one).must()
    one.sandbox.run(damage.split())
    answer = net.check(one)
    assert told in answer.msg + answer.json.get("details", "")


@pytest.mark.parametrize(("damage", "told"), OUTSIDE.values(), ids=OUTSIDE)
def test_check_tells_what_differs_on_the_host(host: Host, damage: str, told: str) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    host.run(damage.replace("HOST_END", one.host_end).split())
    answer = net.check(one)
    assert told in answer.msg + answer.json.get("details", "")


def test_check_names_all_that_differs(host: Host) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    one.sandbox.run(["ip", "addr", "flush", "dev", "eth0"])
    answer = net.check(one)
    assert answer.code == 104
    assert answer.msg == "Failed to match addr 10.1.0.2/24 on interface eth0"
    assert "Failed to match addr fd01::2/64 on interface eth0; Expected Route" in answer.json["details"]


def test_check_needs_the_result_of_add(host: Host) -> None:
    net = Network(host)
    net.add("c1")
    assert net.call("CHECK", "c1").msg == "Required prevResult missing"


def test_check_needs_the_container_in_the_result(host: Host) -> None:
    net = Network(host)
    one = net.add("c1")
    moved = one.answer.json
    moved["interfaces"][2]["sandbox"] = "/run/netns/other"
    answer = net.call("CHECK", "c1", keys={"prevResult": moved})
    assert answer.msg == (
        f"Sandbox in prevResult /run/netns/other doesn't match configured netns: {one.sandbox.path}"
    )
    moved["interfaces"].pop()
    assert net.call("CHECK", "c1", keys={"prevResult": moved}).msg == "Interface name eth0 not found"


def test_two_paths_of_one_namespace_are_the_same(host: Host) -> None:
    net = Network(host)
    one = net.add("c1")
    host.run(["ln", "-s", one.sandbox.path, "/run/alias"])
    net.check(one, netns="/run/alias").must()


def test_additions_of_later_plugins_are_no_difference(host: Host) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    one.sandbox.run(["ip", "addr", "add", "10.5.0.1/24", "dev", "eth0"])
    one.sandbox.run(["ip", "route", "add", "10.6.0.0/24", "via", "10.1.0.1"])
    net.check(one).must()


GO_MASQUERADE = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade comment "TAG, net: net1, if: eth0, id: cid1"
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        ip daddr 224.0.0.0/4 return
        goto masq_checks
    }
}
"""


def test_a_masquerade_in_the_go_plugins_nftables_is_accepted_and_removed(host: Host) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    net = Network(host, isGateway=True, ipMasq=True, ipMasqBackend="nftables", ipam=ipam)
    one = net.add("cid1")
    host.run(["nft", "flush", "ruleset"])
    assert not net.check(one).ok
    host.run(["nft", "-f", "-"], GO_MASQUERADE.replace("TAG", "8e48f37d5de60467-0b65a318f52e521b"))
    net.check(one).must()
    net.delete("cid1")
    assert "10.1.0.2" not in host.run(["nft", "list", "ruleset"])


def test_status_is_well_where_an_add_would_be(host: Host) -> None:
    net = Network(host, **FULL)
    before = host.snapshot(exact=True)
    net.call("STATUS", "", netns="").must()
    assert before.differences(host.snapshot(exact=True)) == []


STATUS_FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown backend": ({"ipMasqBackend": "foo"}, 'unknown ipmasq backend "foo"'),
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, 'failed to find plugin "nowhere"'),
    "a name that is taken": ({"bridge": "lo"}, 'failed to create bridge "lo": "lo" already exists but is'),
}


@pytest.mark.parametrize(("keys", "told"), STATUS_FAILURES.values(), ids=STATUS_FAILURES)
def test_status_tells_why_an_add_would_fail(host: Host, keys: dict[str, Any], told: str) -> None:
    answer = Network(host, **(FULL | keys)).call("STATUS", "", netns="")
    assert answer.msg.startswith(told)

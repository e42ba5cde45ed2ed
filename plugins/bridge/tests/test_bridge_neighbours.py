"""MAC addresses that are derived from IPv4 addresses, and who hears of an address that has changed hands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Attached, Network

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

ADDRESS = "10.1.0.77"
DERIVED = "0e:c1:0a:01:00:4d"
OTHER = "02:00:00:00:00:99"
CIDR = {"ips": [ADDRESS]}
POOL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
KEYS: dict[str, Any] = {"isGateway": True, "ipam": POOL, "runtimeConfig": CIDR}
WITH_MAC: dict[str, Any] = {"runtimeConfig": CIDR | {"mac": OTHER}}
MARK = Path("/run/pycni/bridges/br0.lock")
# An IPAM plugin that needs the container's link.
USER = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
ip -n "${CNI_NETNS##*/}" link set "$CNI_IFNAME" up
ip netns exec "${CNI_NETNS##*/}" cat "/sys/class/net/$CNI_IFNAME/address" >/run/seen
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.77/24"}]}'
"""
needs_go = pytest.mark.skipif(not (GO / "bridge").exists(), reason="no Go plugins in /usr/lib/cni")


def make_network(host: Host) -> tuple[Network, Attached]:
    """Return a network with a neighbour that has an address of its own."""
    net = Network(host, **KEYS)
    return net, net.add("peer", keys={"runtimeConfig": {}})


def forget_truth(sandbox: Sandbox, mac: str = OTHER) -> None:
    """Let a container remember another MAC address of `ADDRESS`."""
    entry = ["ip", "neigh", "replace", ADDRESS, "lladdr", mac, "dev", "eth0", "nud", "stale"]
    sandbox.run(entry)


def remembered(holder: Host | Sandbox) -> str:
    """Return the MAC address of `ADDRESS` in a table of neighbours."""
    shown = holder.json(["ip", "-j", "neigh", "show", ADDRESS])
    return next((str(each.get("lladdr", "")) for each in shown), "")


def wait_for(holder: Host | Sandbox, mac: str) -> None:
    """Wait until a table of neighbours has a MAC address. Without an announcement it takes 8 s of traffic."""
    deadline = time.monotonic() + 20
    while (known := remembered(holder)) != mac:
        assert time.monotonic() < deadline, f"{ADDRESS} is {known}"
        time.sleep(0.02)


def test_the_mac_address_is_that_of_the_address(host: Host) -> None:
    net, peer = make_network(host)
    one = net.add("c1")
    assert (one.mac, peer.mac) == (DERIVED, "0e:c1:0a:01:00:02")
    assert one.sandbox.json(["ip", "-j", "link", "show", "eth0"])[0]["address"] == DERIVED
    net.check(one).must()
    with one.sandbox.serve(80):
        assert peer.sandbox.reaches(ADDRESS, 80, timeout_s=10)
    net.delete("c1")
    two = net.add("c2")
    assert two.mac == remembered(peer.sandbox) == DERIVED
    with two.sandbox.serve(80):
        assert peer.sandbox.reaches(ADDRESS, 80, timeout_s=10)


def test_a_derived_address_is_not_announced_on_a_bridge_of_ours(host: Host) -> None:
    net, peer = make_network(host)
    forget_truth(peer.sandbox)
    net.add("c1")
    assert remembered(peer.sandbox) == OTHER


def test_an_address_without_ipv4_has_a_random_mac_address(host: Host) -> None:
    net = Network(host, ipam=POOL | {"ranges": [[{"subnet": "fd01::/64"}]]})
    assert not net.add("c1").mac.startswith("0e:c1")


@pytest.mark.parametrize("keys", [WITH_MAC, {"args": {"cni": {"mac": OTHER, "ips": [ADDRESS]}}}])
def test_a_requested_mac_address_is_announced_and_so_is_the_next_one(
    host: Host, keys: dict[str, Any]
) -> None:
    net, peer = make_network(host)
    forget_truth(peer.sandbox, "02:00:00:00:00:98")
    assert net.add("c1", keys=keys).mac == OTHER
    wait_for(peer.sandbox, OTHER)
    assert remembered(host) == OTHER
    net.delete("c1", keys=keys)
    assert net.add("c2").mac == DERIVED
    wait_for(peer.sandbox, DERIVED)


def test_an_address_is_announced_after_tuning_has_changed_its_mac_address(host: Host) -> None:
    net, peer = make_network(host)
    one = net.add("c1")
    tuning = Network(host, "tuning", name=net.conf["name"], mac=OTHER)
    tuning.call("ADD", "c1", keys={"prevResult": one.answer.json}).must()
    forget_truth(peer.sandbox)
    net.delete("c1")
    net.add("c2")
    wait_for(peer.sandbox, DERIVED)


def test_a_derived_address_is_announced_on_a_bridge_made_by_hand(host: Host) -> None:
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    net, peer = make_network(host)
    forget_truth(peer.sandbox)
    assert net.add("c1").mac == DERIVED
    wait_for(peer.sandbox, DERIVED)


def test_another_bridge_of_the_same_name_is_not_taken_for_ours(host: Host) -> None:
    net, _ = make_network(host)
    net.delete("peer")
    host.run(["ip", "link", "del", "br0"])
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    peer = net.add("p2", keys={"runtimeConfig": {}})
    forget_truth(peer.sandbox)
    net.add("c1")
    wait_for(peer.sandbox, DERIVED)


def test_a_failed_add_leaves_no_record_of_its_bridge(host: Host) -> None:
    host.sandbox("c1")
    answer = Network(host, **KEYS | {"runtimeConfig": {"ips": ["10.9.0.1"]}}).call("ADD", "c1")
    assert not answer.ok
    assert host.call(MARK.read_text) == ""
    assert host.links() == ["lo"]


@pytest.mark.interop
@needs_go
def test_an_address_of_a_go_container_that_spoke_to_the_host_is_announced(host: Host) -> None:
    net = Network(host, **KEYS | {"cniVersion": "1.0.0"})
    peer = net.add("peer", keys={"runtimeConfig": {}})
    one = net.add("c1", bindir=GO)
    with one.sandbox.serve(80):
        assert peer.sandbox.reaches(ADDRESS, 80, timeout_s=10)
        assert host.reaches(ADDRESS, 80, timeout_s=10)
    assert remembered(peer.sandbox) == one.mac != DERIVED
    net.delete("c1", bindir=GO)
    assert net.add("c2", bindir=OURS).mac == DERIVED
    wait_for(peer.sandbox, DERIVED)


def test_a_link_that_ipam_has_used_keeps_its_mac_address(host: Host, tmp_path: Path) -> None:
    program = tmp_path / "user"
    program.write_text(USER)
    program.chmod(0o755)
    net = Network(host, ipam={"type": "user"})
    host.sandbox("c1")
    result = net.call("ADD", "c1", env={"CNI_PATH": f"{host.bindir}:{tmp_path}"}).must()
    [own] = [each for each in result["interfaces"] if each["name"] == "eth0"]
    assert own["mac"] == host.run(["cat", "/run/seen"]).strip()

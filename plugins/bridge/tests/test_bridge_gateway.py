"""The gateway's address on the bridge, and what the host needs to route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host

IPV4 = {"type": "host-local", "subnet": "10.1.0.0/24"}
CHANGED: dict[str, Any] = {"ipam": IPV4 | {"subnet": "10.2.0.0/24"}, "name": "net2"}
READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"


def test_the_host_forwards_for_the_families_it_is_a_gateway_of(host: Host) -> None:
    Network(host, isGateway=True, ipam=IPV4).add("c1")
    assert host.run(["sysctl", "-n", "net.ipv4.ip_forward"]).strip() == "1"
    assert host.run(["sysctl", "-n", "net.ipv6.conf.all.forwarding"]).strip() == "0"


def test_another_address_on_the_bridge_is_named_with_the_fix(host: Host) -> None:
    Network(host, isGateway=True).add("c1")
    net = Network(host, isGateway=True, **CHANGED)
    host.sandbox("c2")
    before = host.snapshot()
    answer = net.call("ADD", "c2")
    assert (
        answer.msg == 'failed to set bridge addr: "br0" already has an IP address different from 10.2.0.1/24'
    )
    assert answer.json["details"] == (
        "it has 10.1.0.1/24; set forceAddress to replace it, or: ip addr del 10.1.0.1/24 dev br0"
    )
    assert before.differences(host.snapshot()) == []


def test_force_address_replaces_another_address(host: Host) -> None:
    Network(host, isGateway=True).add("c1")
    Network(host, isGateway=True, forceAddress=True, **CHANGED).add("c2")
    assert host.addresses("br0") == ["10.2.0.1/24", "fd01::1/64"]


def test_a_replaced_address_comes_back_when_the_add_fails(host: Host) -> None:
    host.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    host.run(["ip", "addr", "add", "10.1.0.9/24", "brd", "+", "dev", "br0"])
    host.run(["sh", "-c", READ_ONLY])
    host.sandbox("c1")
    before = host.snapshot()
    answer = Network(host, isGateway=True, forceAddress=True, ipam=IPV4).call("ADD", "c1")
    assert answer.msg.startswith("could not set sysctl net/ipv4/ip_forward")
    assert before.differences(host.snapshot()) == []


def test_two_subnets_of_one_family_both_have_a_gateway(host: Host) -> None:
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]
    net = Network(host, isGateway=True, ipam={"type": "host-local", "ranges": ranges})
    for name in ("c1", "c2"):
        net.add(name)
    assert host.addresses("br0") == ["10.1.0.1/24", "10.2.0.1/24"]


def test_values_that_are_right_already_are_not_written(host: Host) -> None:
    host.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    host.run(["sh", "-c", READ_ONLY])
    net = Network(host, isGateway=True, ipam=IPV4)
    one = net.add("c1")
    with one.sandbox.serve(80):
        assert host.reaches(one.address, 80, timeout_s=10)


def test_a_value_that_cannot_be_written_is_named(host: Host) -> None:
    host.run(["sh", "-c", READ_ONLY])
    net = Network(host, isGateway=True, ipam=IPV4)
    host.sandbox("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.msg == "could not set sysctl net/ipv4/ip_forward to 1: read-only file system"
    assert answer.json["details"] == "its value is 0; set it by hand"
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize("kind", ["veth", "bridge"])
def test_a_link_with_the_bridges_name_must_be_a_bridge(host: Host, kind: str) -> None:
    host.run(["ip", "link", "add", "br0", "type", kind])
    host.sandbox("c1")
    answer = Network(host).call("ADD", "c1")
    assert answer.ok == (kind == "bridge")
    if kind == "veth":
        assert answer.msg == 'failed to create bridge "br0": "br0" already exists but is not a bridge'

"""VLANs on a kernel that filters them, and the messages on one that does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host


@pytest.mark.kernel_without("vlan_filtering")
@pytest.mark.parametrize("keys", [{"vlan": 5}, {"vlanTrunk": [{"id": 5}]}, {"vlanTrunk": []}], ids=str)
def test_a_kernel_that_cannot_filter_is_named_and_nothing_made(host: Host, keys: dict[str, Any]) -> None:
    net = Network(host, **keys)
    host.sandbox("c1")
    before = host.snapshot()
    for verb, code in (("ADD", 100), ("STATUS", 50)):
        answer = net.call(verb, "c1")
        assert answer.code == code
        assert answer.msg == 'could not add "br0": operation not supported'
        assert answer.json["details"] == "the kernel was built without CONFIG_BRIDGE_VLAN_FILTERING"
    assert before.differences(host.snapshot()) == []


def test_an_existing_bridge_that_does_not_filter_is_an_error(host: Host) -> None:
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.sandbox("c1")
    before = host.snapshot()
    answer = Network(host, vlan=5).call("ADD", "c1")
    assert answer.msg.startswith('bridge "br0" exists without VLAN filtering')
    assert "ip link set br0 type bridge vlan_filtering 1" in answer.json["details"]
    assert before.differences(host.snapshot()) == []


def port_vlans(host: Host, port: str) -> dict[int, set[str]]:
    shown = host.json(["bridge", "-j", "vlan", "show", "dev", port])
    return {each["vlan"]: set(each.get("flags", [])) for each in shown[0]["vlans"]}


@pytest.mark.needs_kernel("vlan_filtering")
def test_containers_of_different_vlans_do_not_reach_each_other(host: Host) -> None:
    net = Network(host, isGateway=True)
    one, two = (net.add(name, keys={"vlan": 5}) for name in ("c1", "c2"))
    other = net.add("c3", keys={"vlan": 6, "name": "net2"})
    assert port_vlans(host, one.host_end) == {5: {"PVID", "Egress Untagged"}}
    with two.sandbox.serve(80), other.sandbox.serve(80):
        assert one.sandbox.reaches(two.address, 80)
        assert not one.sandbox.reaches(other.address, 80)
    assert host.addresses("br0.5") == ["10.1.0.1/24", "fd01::1/64"]
    assert one.answer.json["interfaces"][3]["name"] == "br0.5"
    net.check(one, keys={"vlan": 5}).must()


@pytest.mark.needs_kernel("vlan_filtering")
def test_a_trunk_port_carries_its_vlans_tagged(host: Host) -> None:
    one = Network(host, vlanTrunk=[{"minID": 10, "maxID": 12}, {"id": 42}]).add("c1")
    untagged = {"PVID", "Egress Untagged"}
    assert port_vlans(host, one.host_end) == {1: untagged, 10: set(), 11: set(), 12: set(), 42: set()}


@pytest.mark.needs_kernel("vlan_filtering")
def test_the_default_vlan_stays_where_it_is_asked_for(host: Host) -> None:
    one = Network(host, vlan=5, preserveDefaultVlan=True).add("c1")
    assert set(port_vlans(host, one.host_end)) == {1, 5}

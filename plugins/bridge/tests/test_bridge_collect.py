"""GC removes gateway links of VLANs that are stale. Pure, as few kernels of test machines filter VLANs."""

from __future__ import annotations

from cni.kernel.bridge_vlan import PortVlan
from cni.kernel.link import Link
from cni_bridge.conf import BridgeConf
from cni_bridge.gc import list_unused_gateways

CONF = BridgeConf.model_validate({"name": "net", "bridge": "br0", "vlan": 5})
BRIDGE = 1


def veth(name: str, index: int, peer: int, master: int = 0, alias: str = "") -> Link:
    return Link(name, index, "veth", "02:00:00:00:00:01", 1500, 1, "up", master, peer, alias, 0)


def gateway(vid: int, index: int, alias: str = "") -> list[Link]:
    """Return a gateway link and its port of the bridge."""
    return [veth(f"br0.{vid}", index, index + 1), veth(f"veth{index}", index + 1, index, BRIDGE, alias)]


def unused(links: list[Link], vlans: dict[int, set[int]]) -> list[tuple[str, int]]:
    ports = [each for each in links if each.master == BRIDGE]
    carried = {index: {PortVlan(vid) for vid in vids} for index, vids in vlans.items()}
    return [(each.name, vid) for each, vid in list_unused_gateways(CONF, links, ports, carried)]


def test_a_gateway_goes_when_its_own_port_is_the_last_one() -> None:
    links = [*gateway(5, 10), veth("veth1", 20, 99, BRIDGE)]
    assert unused(links, {11: {5}, 20: {1, 6}}) == [("br0.5", 5)]
    assert unused(links, {11: {5}, 20: {4, 5}}) == []


def test_another_vlans_gateway_goes_only_if_it_is_ours() -> None:
    assert unused(gateway(7, 10), {11: {7}}) == []
    assert unused(gateway(7, 10, "pycni gateway of VLAN 7"), {11: {7}}) == [("br0.7", 7)]


def test_a_link_that_only_has_such_a_name_stays() -> None:
    # Its other end is no port of the bridge, or the name is no number.
    assert unused([veth("br0.5", 10, 11), veth("veth1", 11, 10)], {}) == []
    assert unused([veth("br0.05", 10, 11), veth("veth1", 11, 10, BRIDGE)], {}) == []
    assert unused([veth("br0.x", 10, 11), veth("veth1", 11, 10, BRIDGE)], {}) == []

"""An empty network, whose last container is deleted, passes from Debian's Go plugins to ours and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import SUBNET, SUBNET6, Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host
    from cni.testing.network import Attached

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "bridge").exists(), reason="containernetworking-plugins is not installed"),
]

ONE_FAMILY: dict[str, Any] = {"ipam": {"type": "host-local", "subnet": SUBNET}}
IPV6: dict[str, Any] = {"ipam": {"type": "host-local", "subnet": SUBNET6}}
CONFS: dict[str, dict[str, Any]] = {
    "layer 2": {"ipam": {}},
    "no gateway": ONE_FAMILY,
    "no gateway, dual stack": {},
    "gateway": ONE_FAMILY | {"isGateway": True},
    "gateway, IPv6": IPV6 | {"isGateway": True},
    "gateway, dual stack": {"isDefaultGateway": True},
    "masquerade": {"isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": "iptables"},
    "MTU and hairpin": {"isGateway": True, "mtu": 1400, "hairpinMode": True},
    "promiscuous": {"isGateway": True, "promiscMode": True},
    "spoof check": {"macspoofchk": True},
}
VLANS: dict[str, dict[str, Any]] = {
    "VLAN": {"vlan": 5},
    "VLAN with a gateway": {"vlan": 5, "isGateway": True},
}
TRUNK: dict[str, Any] = {"ipam": {}, "vlanTrunk": [{"minID": 5, "maxID": 7}]}
# A round takes ten seconds on the second kernel; `test_bridge_vlan.py` has both modes.
WARM = pytest.mark.modes("warm")
NO_MAC = "00:00:00:00:00:00"


def bridge(host: Host) -> dict[str, Any]:
    """Return what the kernel says of the bridge."""
    [found] = host.json(["ip", "-j", "link", "show", "br0"])
    assert isinstance(found, dict)
    return found


def make_bridge_without_mac(host: Host) -> None:
    """Leave the bridge as the kernel does when its last port goes and nobody has pinned its address."""
    host.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    host.run(["ip", "link", "add", "port", "master", "br0", "type", "veth", "peer", "name", "other"])
    host.run(["ip", "link", "del", "port"])
    assert bridge(host)["address"] == NO_MAC


def come_and_go(net: Network, name: str, bindir: Path | None) -> None:
    """Attach two containers, let one reach the other, check both if this suite can, and detach them."""
    pair = [net.add(f"{name}{number}", bindir=bindir) for number in (1, 2)]
    assert_they_reach_each_other(*pair)
    for each in pair:
        # The Go plugin of this release cannot check what has no IPAM, nor what it makes without a gateway:
        # it wants the MAC address that the bridge had before the next port came.
        recorded = each.answer.json["interfaces"][0]["mac"]
        if bindir is OURS or (net.conf["ipam"] and recorded == bridge(net.host)["address"]):
            net.check(each, bindir=bindir).must()
        net.delete(each.name, bindir=bindir, keys={"prevResult": each.answer.json})
        assert each.sandbox.links() == ["lo"]


def assert_they_reach_each_other(one: Attached, two: Attached) -> None:
    addresses = [each.answer.addresses for each in (one, two)]
    if not any(addresses):
        for number, each in enumerate((one, two), 1):
            each.sandbox.run(["ip", "addr", "add", f"10.1.0.{number}/24", "dev", "eth0"])
        addresses[1] = ["10.1.0.2"]
    for address in addresses[1]:
        one.sandbox.run(["ping", "-c", "1", "-W", "5", address])


def pass_on(host: Host, first: Path | None, second: Path | None, conf: dict[str, Any]) -> None:
    net = Network(host, cniVersion="1.0.0", **conf)
    come_and_go(net, "first", first)
    # Both suites leave the gateway of a VLAN, a pair whose one end is a port.
    ports = host.json(["ip", "-j", "link", "show", "master", "br0"])
    assert [each["ifname"] for each in ports if each.get("link") != "br0.5"] == []
    for name, bindir in (("second", second), ("third", first)):
        come_and_go(net, name, bindir)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize(("first", "second"), [(GO, OURS), (OURS, GO)], ids=["go-first", "we-first"])
def test_an_empty_network_passes_on(
    host: Host, first: Path | None, second: Path | None, conf: dict[str, Any]
) -> None:
    pass_on(host, first, second, conf)


@WARM
@pytest.mark.needs_kernel("vlan_filtering")
@pytest.mark.parametrize("conf", VLANS.values(), ids=VLANS)
@pytest.mark.parametrize(("first", "second"), [(GO, OURS), (OURS, GO)], ids=["go-first", "we-first"])
def test_an_empty_network_with_vlans_passes_on(
    host: Host, first: Path | None, second: Path | None, conf: dict[str, Any]
) -> None:
    pass_on(host, first, second, conf)


@WARM
@pytest.mark.needs_kernel("vlan_filtering")
def test_an_empty_network_with_a_trunk_passes_on(host: Host) -> None:
    pass_on(host, OURS, GO, TRUNK)


@WARM
@pytest.mark.needs_kernel("vlan_filtering")
def test_a_trunk_that_the_go_plugin_has_ignored_works_when_the_bridge_filters(host: Host) -> None:
    """Releases before 1.3 do not know the key, and make a bridge that does not filter."""
    net = Network(host, cniVersion="1.0.0", **TRUNK)
    come_and_go(net, "first", GO)
    [shown] = host.json(["ip", "-d", "-j", "link", "show", "br0"])
    if not shown["linkinfo"]["info_data"]["vlan_filtering"]:
        host.sandbox("refused")
        answer = net.call("ADD", "refused")
        assert answer.code == 105
        command = "ip link set br0 type bridge vlan_filtering 1"
        assert f"switch it on with: {command}" in answer.json["details"]
        host.run(command.split())
    come_and_go(net, "second", OURS)


@pytest.mark.parametrize("conf", [CONFS["layer 2"], ONE_FAMILY], ids=["layer 2", "no gateway"])
def test_a_bridge_without_a_mac_address_is_taken_as_it_is(host: Host, conf: dict[str, Any]) -> None:
    make_bridge_without_mac(host)
    net = Network(host, **conf)
    one = net.add("c1")
    net.delete("c1")
    # Nothing has pinned the address: without a port there is none.
    assert bridge(host)["address"] == NO_MAC
    one = net.add("c2")
    assert bridge(host)["address"] != NO_MAC
    assert one.answer.json["interfaces"][0]["mac"] == bridge(host)["address"]
    net.check(one).must()


def test_a_gateway_on_a_bridge_without_a_mac_address_keeps_its_own(host: Host) -> None:
    net = Network(host, isGateway=True)
    make_bridge_without_mac(host)
    one = net.add("c1")
    before = bridge(host)["address"]
    assert before == one.answer.json["interfaces"][0]["mac"] != NO_MAC
    two = net.add("c2")
    net.delete("c1")
    assert bridge(host)["address"] == before
    net.check(two).must()


def test_an_add_that_fails_leaves_a_bridge_without_a_mac_address_as_it_was(host: Host) -> None:
    make_bridge_without_mac(host)
    host.sandbox("c1")
    before = host.snapshot()
    assert not Network(host, ipam={"type": "nowhere"}).call("ADD", "c1").ok
    assert before.differences(host.snapshot()) == []
    assert bridge(host)["address"] == NO_MAC

"""Properties of the links: MTU, MAC address, flags of the port, layer 2 only."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network
from cni.versions import SUPPORTED

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

EXPERIMENTAL = 0x88B5  # an EtherType for local experiments (IEEE 802)
LAYER2: dict[str, Any] = {"ipam": {}}


def link_of(inside: Host | Sandbox, name: str) -> dict[str, Any]:
    [shown] = inside.json(["ip", "-j", "-d", "link", "show", "dev", name])
    return dict(shown)


def port_of(host: Host, name: str) -> dict[str, Any]:
    return dict(link_of(host, name)["linkinfo"]["info_slave_data"])


def test_the_result_names_bridge_host_end_and_container(host: Host) -> None:
    one = Network(host, isDefaultGateway=True).add("c1")
    bridge, host_end, container = one.answer.json["interfaces"]
    assert bridge == {"name": "br0", "mac": link_of(host, "br0")["address"]}
    assert host_end == {"name": one.host_end, "mac": link_of(host, one.host_end)["address"], "mtu": 1500}
    mac = link_of(one.sandbox, "eth0")["address"]
    assert container == {"name": "eth0", "mac": mac, "mtu": 1500, "sandbox": one.sandbox.path}
    assert one.answer.json["ips"] == [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2},
        {"address": "fd01::2/64", "gateway": "fd01::1", "interface": 2},
    ]
    assert one.answer.json["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
        {"dst": "::/0", "gw": "fd01::1"},
    ]
    assert "dns" not in one.answer.json


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_version_gets_a_result_of_its_shape(host: Host, version: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24"}
    answer = Network(host, isGateway=True, ipam=ipam, cniVersion=version).add("c1").answer.json
    if version in {"0.1.0", "0.2.0"}:
        assert answer["ip4"] == {"ip": "10.1.0.2/24", "gateway": "10.1.0.1"}
    else:
        assert len(answer["interfaces"]) == 3
        assert answer["ips"][0]["address"] == "10.1.0.2/24"


def test_name_service_settings_of_the_configuration_replace_those_of_ipam(host: Host) -> None:
    host.run(["sh", "-c", "echo nameserver 192.0.2.53 > /run/resolv.conf"])
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24", "resolvConf": "/run/resolv.conf"}
    net = Network(host, ipam=ipam)
    assert net.add("c1").answer.json["dns"] == {"nameservers": ["192.0.2.53"]}
    assert net.add("c2", keys={"dns": {"domain": "example.org"}}).answer.json["dns"] == {
        "domain": "example.org"
    }
    assert "dns" not in net.add("c3", keys={"dns": {"search": []}}).answer.json


def test_the_mtu_holds_at_both_ends_and_for_a_new_bridge(host: Host) -> None:
    net = Network(host, mtu=1400)
    one = net.add("c1")
    assert link_of(one.sandbox, "eth0")["mtu"] == 1400
    assert link_of(host, one.host_end)["mtu"] == 1400
    assert link_of(host, "br0")["mtu"] == 1400
    assert [each.get("mtu") for each in one.answer.json["interfaces"]] == [None, 1400, 1400]


@pytest.mark.parametrize("where", ["runtimeConfig", "args", "CNI_ARGS"])
def test_a_container_gets_the_mac_address_asked_for(host: Host, where: str) -> None:
    mac = "02:11:22:33:44:55"
    keys = {"runtimeConfig": {"runtimeConfig": {"mac": mac}}, "args": {"args": {"cni": {"mac": mac}}}}
    args = f"IgnoreUnknown=1;MAC={mac}" if where == "CNI_ARGS" else ""
    one = Network(host).add("c1", keys=keys.get(where, {}), args=args)
    assert one.mac == link_of(one.sandbox, "eth0")["address"] == mac


def test_hairpin_mode_is_that_of_the_port(host: Host) -> None:
    net = Network(host)
    for name, hairpin in (("c1", True), ("c2", False)):
        one = net.add(name, keys={"hairpinMode": hairpin})
        assert port_of(host, one.host_end)["hairpin"] is hairpin


def _hears_its_own_broadcast() -> bool:
    """Send a frame to everybody from eth0 and tell whether the bridge sends it back."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENTAL)) as sock:
        sock.bind(("eth0", EXPERIMENTAL))
        sock.settimeout(0.3)
        source = sock.getsockname()[4]
        sock.send(b"\xff" * 6 + source + EXPERIMENTAL.to_bytes(2, "big") + b"hello".ljust(50))
        try:
            while True:
                _, (_, _, kind, *_) = sock.recvfrom(2000)
                if kind == socket.PACKET_BROADCAST:
                    return True
        except TimeoutError:
            return False


def test_the_bridge_sends_a_frame_back_only_in_hairpin_mode(host: Host) -> None:
    net = Network(host)
    for name, hairpin in (("c1", True), ("c2", False)):
        one = net.add(name, keys={"hairpinMode": hairpin})
        assert one.sandbox.call(_hears_its_own_broadcast) is hairpin


def test_promiscuous_mode_is_that_of_the_bridge(host: Host) -> None:
    Network(host, promiscMode=True).add("c1")
    assert "PROMISC" in link_of(host, "br0")["flags"]


def test_port_isolation_is_that_of_the_port(host: Host) -> None:
    one = Network(host, portIsolation=True).add("c1")
    assert port_of(host, one.host_end)["isolated"] is True


def test_without_ipam_the_container_is_connected_and_has_no_address(host: Host) -> None:
    net = Network(host, **LAYER2)
    one, two = net.add("c1"), net.add("c2")
    assert "ips" not in one.answer.json
    assert one.sandbox.addresses("eth0") == []
    for each, address in ((one, "10.5.0.1"), (two, "10.5.0.2")):
        each.sandbox.run(["ip", "addr", "add", f"{address}/24", "dev", "eth0"])
    with two.sandbox.serve(80):
        assert one.sandbox.reaches("10.5.0.2", 80, timeout_s=10)
    net.check(one).must()


def test_layer_2_needs_a_version_whose_result_can_do_without_addresses(host: Host) -> None:
    net = Network(host, **LAYER2, cniVersion="0.2.0")
    host.sandbox("c1")
    before = host.snapshot()
    assert net.call("ADD", "c1").msg == "cannot convert: no valid IP addresses"
    assert before.differences(host.snapshot()) == []


def test_a_container_interface_that_is_to_stay_down_stays_down(host: Host) -> None:
    net = Network(host, **LAYER2, disableContainerInterface=True)
    one = net.add("c1")
    assert "UP" not in link_of(one.sandbox, "eth0")["flags"]
    net.check(one).must()


def test_the_mac_address_of_a_bridge_stays_as_containers_come_and_go(host: Host) -> None:
    net = Network(host, **LAYER2)
    net.add("c0")
    mac = link_of(host, "br0")["address"]
    for number in range(1, 4):
        net.add(f"c{number}")
        assert link_of(host, "br0")["address"] == mac
    for number in range(4):
        net.delete(f"c{number}")
        assert link_of(host, "br0")["address"] == mac


def test_an_existing_bridge_is_used_as_it_is(host: Host) -> None:
    host.run(["ip", "link", "add", "br0", "mtu", "1450", "type", "bridge"])
    mac = link_of(host, "br0")["address"]
    one = Network(host, isGateway=True).add("c1")
    assert host.addresses("br0") == ["10.1.0.1/24", "fd01::1/64"]
    assert link_of(host, "br0")["address"] == one.answer.json["interfaces"][0]["mac"] == mac

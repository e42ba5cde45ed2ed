"""The bridge plugin's plan, made from configuration, request and addresses; no kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import marks
from cni.conf import read
from cni.errors import CniError
from cni.firewall.intents import Owner
from cni.interface.plan import host_name
from cni.kernel.bridge_vlan import PortVlan
from cni.request import Attachment, Request, Verb
from cni.result import Ip, Result, Route
from cni_bridge import plan
from cni_bridge.bridges import port_vlans, vlan_messages
from cni_bridge.conf import BridgeConf
from cni_bridge.plan import VlanPlan

REQUEST = Request(Verb.ADD, "cid1", "/run/netns/c1", "eth0")
OWNER = Owner("net1", "cid1", "eth0")
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,200}", fullmatch=True)
IFNAMES = st.from_regex(r"[a-z0-9]{1,15}", fullmatch=True)


def conf(**keys: Any) -> BridgeConf:
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "bridge", "ipam": {"type": "host-local"}}
    return read(BridgeConf, base | keys)


def leased(*addresses: str, gateway: str = "", routes: tuple[Route, ...] = ()) -> Result:
    gw = ip_address(gateway) if gateway else None
    return Result(ips=tuple(Ip(ip_interface(each), gw) for each in addresses), routes=routes)


def default(gw: str | None, dst: str = "0.0.0.0/0") -> Route:
    return Route(ip_network(dst), ip_address(gw) if gw else None)


def test_a_gateway_is_the_first_address_of_the_subnet_unless_ipam_names_one() -> None:
    gateway = plan.plan_addresses(conf(isGateway=True), OWNER, leased("10.1.2.3/16", "fd00::9/64")).gateway
    assert gateway is not None
    assert [str(each) for each in gateway.addresses] == ["10.1.0.1/16", "fd00::1/64"]
    named = plan.plan_addresses(
        conf(isGateway=True), OWNER, leased("10.1.2.3/16", gateway="10.1.9.9")
    ).gateway
    assert named is not None
    assert [str(each) for each in named.addresses] == ["10.1.9.9/16"]


def test_without_is_gateway_nothing_is_put_on_the_bridge() -> None:
    made = plan.plan_addresses(conf(), OWNER, leased("10.1.2.3/16", gateway="10.1.0.1"))
    assert made.gateway is None
    assert made.layer3.ips[0].gateway == ip_address("10.1.0.1")


def test_a_default_gateway_gives_each_family_a_route() -> None:
    made = plan.plan_addresses(conf(isDefaultGateway=True), OWNER, leased("10.1.2.3/16", "fd00::9/64"))
    assert made.shown_routes == (default("10.1.0.1"), default("fd00::1", "::/0"))


def test_a_default_route_with_a_gateway_is_not_added_again() -> None:
    routes = (default("10.1.0.254"),)
    made = plan.plan_addresses(conf(isDefaultGateway=True), OWNER, leased("10.1.2.3/16", routes=routes))
    assert made.shown_routes == routes


def test_a_default_route_without_a_gateway_goes_through_the_bridge() -> None:
    routes = (default(None),)
    made = plan.plan_addresses(conf(isDefaultGateway=True), OWNER, leased("10.1.2.3/16", routes=routes))
    assert made.shown_routes == (default(None), default("10.1.0.1"))
    assert made.layer3.routes == (default("10.1.0.1"), default("10.1.0.1"))


def test_ipam_without_an_address_is_an_error() -> None:
    with pytest.raises(CniError, match="IPAM plugin returned missing IP config"):
        plan.plan_addresses(conf(), OWNER, Result())


def test_a_vlans_gateway_has_a_link_of_its_own() -> None:
    gateway = plan.plan_addresses(conf(isGateway=True, vlan=100), OWNER, leased("10.1.2.3/16")).gateway
    assert gateway is not None
    assert gateway.link == "cni0.100"
    with pytest.raises(CniError, match=r'failed to create vlan gateway "abcdefghijkl.100"'):
        plan.plan_addresses(
            conf(isGateway=True, vlan=100, bridge="abcdefghijkl"), OWNER, leased("10.1.2.3/16")
        )


def test_the_masquerade_covers_every_address() -> None:
    made = plan.plan_addresses(conf(ipMasq=True), OWNER, leased("10.1.2.3/16", "fd00::9/64"))
    assert made.masquerade is not None
    assert [str(each) for each in made.masquerade.addresses] == ["10.1.2.3/16", "fd00::9/64"]


def test_link_settings_come_from_the_configuration() -> None:
    made = plan.plan_links(conf(mtu=1400, hairpinMode=True, portIsolation=True, macspoofchk=True), REQUEST)
    assert (made.pair.mtu, made.bridge.mtu) == (1400, 1400)
    assert made.port.hairpin
    assert made.port.isolated
    assert made.spoof_check
    assert made.port.vlans is None
    assert made.pair.is_up
    assert not plan.plan_links(conf(ipam={}, disableContainerInterface=True), REQUEST).pair.is_up


@given(network=NAMES, container_id=NAMES, ifname=IFNAMES)
def test_names_fit_the_kernel(network: str, container_id: str, ifname: str) -> None:
    """A link's name has at most 15 bytes and its alias 255."""
    assert len(host_name(Owner(network, container_id, ifname))) == 12
    alias = marks.alias(network, Attachment(container_id, ifname))
    assert len(alias) <= 255
    assert alias.startswith(marks.alias_prefix(network))


def test_names_differ_where_attachments_differ() -> None:
    owners = [Owner(n, c, i) for n in ("n1", "n2") for c in ("c1", "c2") for i in ("eth0", "eth1")]
    assert len({host_name(each) for each in owners}) == len(owners)
    aliases = {marks.alias(each.network, Attachment(each.container_id, each.ifname)) for each in owners}
    assert len(aliases) == len(owners)


VLAN_CASES = {
    "an access port": (VlanPlan(5, (), keeps_default=False), (PortVlan(5, 5, pvid=True, untagged=True),)),
    "a trunk takes VLAN 1 untagged": (
        VlanPlan(0, (2, 3, 4, 9), keeps_default=False),
        (PortVlan(2, 4), PortVlan(9, 9), PortVlan(1, 1, pvid=True, untagged=True)),
    ),
    "a trunk with an access VLAN": (
        VlanPlan(7, (9,), keeps_default=False),
        (PortVlan(9, 9), PortVlan(7, 7, pvid=True, untagged=True)),
    ),
    "an empty trunk": (VlanPlan(0, (), keeps_default=False), ()),
}


@pytest.mark.parametrize(("vlans", "ports"), VLAN_CASES.values(), ids=VLAN_CASES)
def test_a_port_is_in_the_vlans_asked_for(vlans: VlanPlan, ports: tuple[PortVlan, ...]) -> None:
    assert port_vlans(vlans) == ports


def test_the_default_vlan_is_taken_off_first_unless_it_is_to_stay() -> None:
    messages = vlan_messages("veth1", 5, VlanPlan(5, (), keeps_default=False))
    assert [each.doing for each in messages] == [
        'could not remove VLAN 1-4094 from bridge port "veth1"',
        'could not add VLAN 5 to bridge port "veth1"',
    ]
    [kept] = vlan_messages("veth1", 5, VlanPlan(5, (), keeps_default=True))
    assert kept.doing == 'could not add VLAN 5 to bridge port "veth1"'
    assert vlan_messages("veth1", 5, VlanPlan(0, (), keeps_default=False)) == []

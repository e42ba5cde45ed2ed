"""The keys of firewall, and what they plan."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError
from cni.firewall.intents import Owner
from cni.request import Request, Verb
from cni.result import Interface, Ip, Result
from cni_firewall.conf import FirewallConf
from cni_firewall.plan import Plan, parse_values, plan

REQUEST = Request(Verb.ADD, "cid1", "/run/netns/c1", "eth0")
OWNER = Owner("net1", "cid1", "eth0")
IPS = (Ip(ip_interface("10.1.0.2/24")), Ip(ip_interface("fd00::2/64")))
BRIDGED = Result((Interface("cni0"), Interface("veth0"), Interface("eth0", sandbox="/run/netns/c1")), IPS)
ADDRESSES = tuple(each.address.ip for each in IPS)


def conf(**keys: Any) -> FirewallConf:
    return read(FirewallConf, {"name": "net1", **keys})


def planned(result: Result = BRIDGED, *, through_nftables: bool = True, **keys: Any) -> Plan:
    return plan(conf(**keys), REQUEST, result, through_nftables=through_nftables)


def test_the_defaults_are_those_of_the_go_plugin() -> None:
    for made in (conf(), conf(iptablesAdminChainName="", firewalldZone="", ingressPolicy="", backend="")):
        assert (made.admin_chain, made.zone, made.ingress) == ("CNI-ADMIN", "trusted", "open")
        assert made.known_backend == ""
    assert conf(backend="ipfw").known_backend == ""


@pytest.mark.parametrize(
    ("keys", "msg"),
    [
        ({"ingressPolicy": "closed"}, 'unknown ingress policy: "closed"'),
        ({"isolate": "yes"}, 'unknown isolation: "yes"'),
        ({"iptablesAdminChainName": "-j ACCEPT"}, '"-j ACCEPT" cannot be the name'),
        ({"iptablesAdminChainName": "A\nCOMMIT"}, "cannot be the name"),
        ({"iptablesAdminChainName": "A" * 29}, "cannot be the name"),
        ({"iptablesAdminChainName": "ACCEPT"}, "cannot be the name"),
        ({"iptablesAdminChainName": "FORWARD"}, "cannot be the name"),
        ({"iptablesAdminChainName": "CNI-FORWARD"}, "cannot be the name"),
        ({"iptablesAdminChainName": "CNI-ISOLATION-STAGE-2"}, "cannot be the name"),
        ({"firewalldZone": "a b"}, 'firewalldZone "a b" cannot be the name of a zone'),
        ({"allow": ["../x"]}, '"../x" cannot be the name of a network'),
    ],
)
def test_wrong_values_are_refused(keys: dict[str, Any], msg: str) -> None:
    with pytest.raises(CniError) as caught:
        conf(**keys)
    assert caught.value.code == 7
    assert msg in caught.value.msg


@pytest.mark.parametrize(
    ("keys", "by_nftables", "beside_others"),
    [
        ({}, (), ()),
        ({"ingressPolicy": "same-bridge"}, ("isolated",), ("go-same-bridge",)),
        ({"ingressPolicy": "isolated"}, ("isolated", "no_icc"), ("go-isolated",)),
        ({"isolate": True}, ("isolated",), ("isolated",)),
        ({"isolate": "strict", "icc": False}, ("strict", "no_icc"), ("strict", "no_icc")),
        ({"internal": True, "ingressPolicy": "open"}, ("internal",), ("internal",)),
    ],
)
def test_policies(keys: dict[str, Any], by_nftables: tuple[str, ...], beside_others: tuple[str, ...]) -> None:
    assert planned(**keys).policies == ("links", *by_nftables)
    assert planned(through_nftables=False, **keys).policies == ("links", *beside_others)


def test_a_plan_survives_its_record() -> None:
    made = planned(isolate=True, icc=False, allow=["net2"])
    assert made == Plan(OWNER, ADDRESSES, "cni0", ("veth0",), ("links", "isolated", "no_icc"), ("net2",))
    assert parse_values(OWNER, made.to_values()) == made


def test_a_damaged_record_is_read_as_far_as_it_is_valid() -> None:
    values = {"ips": ["10.1.0.2", 5, "x", "fd00::2"], "link": "a/b", "ports": ["../x", "veth0"], "allow": "x"}
    assert parse_values(OWNER, values) == Plan(OWNER, ADDRESSES, "", ("veth0",), (), ())


def test_a_result_without_a_link_of_the_host_is_admitted_but_not_isolated() -> None:
    inside = Result((Interface("eth0", sandbox="/run/netns/c1"),), IPS)
    assert planned(inside) == Plan(OWNER, ADDRESSES)
    for keys in ({"ingressPolicy": "same-bridge"}, {"isolate": True}):
        with pytest.raises(CniError, match=r"interface needs to be set for .*, make sure to chain"):
            planned(inside, **keys)


def test_the_host_end_is_the_link_of_a_container_without_a_bridge() -> None:
    routed = Result((Interface("veth1"), Interface("eth0", sandbox="/run/netns/c1")), IPS[:1])
    assert planned(routed, icc=False) == Plan(
        OWNER, ADDRESSES[:1], "veth1", ("veth1",), ("links", "no_icc"), ()
    )


@pytest.mark.parametrize("name", ["cni+", "-j", "!", "a b", "a/b", "..", "x" * 16, "a\nb"])
def test_names_of_links_that_mean_more_are_refused(name: str) -> None:
    with pytest.raises(CniError, match="cannot be the name of a link"):
        planned(BRIDGED._replace(interfaces=(Interface(name), *BRIDGED.interfaces[1:])))

"""Which addresses ports are published for, and what is said about those that cannot be reached."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from cni.conf import read
from cni.firewall.intents import Owner, PortMapping
from cni.request import Request, Verb
from cni.result import Interface, Ip, Result
from cni_portmap.conf import PortmapConf
from cni_portmap.plan import find_targets, list_host_ends, plan_forward, plan_notes

INTERFACES = (Interface("cni0"), Interface("veth1"), Interface("eth0", sandbox="/run/netns/c1"))
OTHER = ip_interface("10.22.0.3/16")
V4, V6 = ip_interface("10.22.0.2/16"), ip_interface("fd00::2/64")
REQUEST = Request(Verb.ADD, container_id="cid1", ifname="eth0")


@pytest.mark.parametrize(
    ("ips", "targets"),
    [
        ((Ip(V4, interface=2), Ip(V6, interface=2)), (V4, V6)),
        ((Ip(V6, interface=2), Ip(V4, interface=2)), (V4, V6)),
        ((Ip(V4),), (V4,)),
        ((Ip(V4, interface=9),), (V4,)),
        (
            (Ip(V4, interface=0), Ip(ip_interface("10.22.0.3/16"), interface=2)),
            (ip_interface("10.22.0.3/16"),),
        ),
        ((Ip(V4, interface=2), Ip(OTHER, interface=2)), (V4,)),
        ((Ip(V4, interface=1),), ()),
        ((), ()),
    ],
)
def test_the_first_address_of_each_family_counts(ips: tuple[Ip, ...], targets: tuple[object, ...]) -> None:
    assert find_targets(Result(INTERFACES, ips), "eth0") == targets


def test_an_address_of_another_link_of_the_container_does_not_count() -> None:
    interfaces = (*INTERFACES, Interface("eth1", sandbox="/run/netns/c1"))
    result = Result(interfaces, (Ip(V4, interface=2), Ip(ip_interface("10.9.0.2/24"), interface=3)))
    assert find_targets(result, "eth1") == (ip_interface("10.9.0.2/24"),)


def test_the_plan_says_what_the_configuration_says() -> None:
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.1.1.1"}
    keys = {"snat": False, "masqAll": True, "externalSetMarkChain": "X", "conditionsV6": ["-s", "::1"]}
    conf = read(PortmapConf, {"name": "net1", "runtimeConfig": {"portMappings": [mapping]}, **keys})
    intent = plan_forward(conf, REQUEST, Result(INTERFACES, (Ip(V4, interface=2),)))
    assert intent is not None
    assert intent.owner == Owner("net1", "cid1", "eth0")
    assert intent.mappings == (PortMapping("tcp", 8080, 80, ip_address("10.1.1.1")),)
    assert (intent.snat, intent.masq_all, intent.mark_bit) == (False, True, 13)
    assert (intent.external_set_mark_chain, intent.conditions_v6) == ("X", ("-s", "::1"))


@pytest.mark.parametrize("mappings", [[], [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]])
def test_there_is_no_plan_without_ports_or_addresses(mappings: list[dict[str, object]]) -> None:
    conf = read(PortmapConf, {"name": "net1", "runtimeConfig": {"portMappings": mappings}})
    ips = () if mappings else (Ip(V4, interface=2),)
    assert plan_forward(conf, REQUEST, Result(INTERFACES, ips)) is None


def test_links_without_a_sandbox_are_on_the_host() -> None:
    assert list_host_ends(Result(INTERFACES)) == ["cni0", "veth1"]


@pytest.mark.parametrize(
    ("host_ip", "targets", "said"),
    [
        (None, (V4,), ""),
        ("10.1.1.1", (V4, V6), ""),
        ("::1", (V4, V6), "host port 8080/tcp on ::1 cannot be reached"),
        ("fd00::9", (V4,), "on fd00::9 is not published: the container has no IPv6 address"),
        (None, (), "the container has no address"),
    ],
)
def test_ports_that_cannot_be_reached_are_reported(
    host_ip: str | None, targets: tuple[object, ...], said: str
) -> None:
    mapping = PortMapping("tcp", 8080, 80, ip_address(host_ip) if host_ip else None)
    notes = plan_notes([mapping], targets)  # type: ignore[arg-type] # a table of interfaces of both families
    assert [said in note for note in notes] == ([True] if said else [])

"""The messages that are packed by hand are those that pyroute2 makes of the same request."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni.kernel import addr, link, route
from cni.result import Route

if TYPE_CHECKING:
    from cni.kernel.rtnetlink import Message

HEADER_BYTES = 16
MAC = "02:00:00:00:00:05"


def decoded(message: Message) -> Any:
    """Read a message as pyroute2 does; an alias has no NUL at its end, which pyroute2 does not mind."""
    kind = {16: ifinfmsg, 19: ifinfmsg, 20: ifaddrmsg, 24: rtmsg}[message.kind]
    header = (HEADER_BYTES + len(message.body)).to_bytes(4, "little") + message.kind.to_bytes(2, "little")
    found = kind(header + bytes(10) + message.body)
    found.decode()
    return found


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        (link.set_mac("eth0", 7, MAC), "IFLA_ADDRESS", MAC),
        (link.set_mtu("eth0", 7, 1400), "IFLA_MTU", 1400),
        (link.set_alias("eth0", 7, "pycni:n:c1:eth0"), "IFLA_IFALIAS", "pycni:n:c1:eth0"),
        (link.set_master("eth0", 7, 3), "IFLA_MASTER", 3),
    ],
)
def test_a_setting_of_a_link_is_one_attribute(message: Message, name: str, value: object) -> None:
    found = decoded(message)
    assert found["index"] == 7
    assert [(each[0], each[1]) for each in found["attrs"]] == [(name, value)]


def test_flags_change_only_where_they_are_named() -> None:
    found = decoded(link.set_flags("eth0", 7, on=link.IFF_UP, off=link.IFF_PROMISC))
    assert (found["index"], found["flags"], found["change"]) == (7, 0x1, 0x101)


@pytest.mark.parametrize(
    ("address", "attrs"),
    [
        (
            "10.1.0.2/16",
            {"IFA_LOCAL": "10.1.0.2", "IFA_ADDRESS": "10.1.0.2", "IFA_BROADCAST": "10.1.255.255"},
        ),
        ("10.1.0.2/31", {"IFA_LOCAL": "10.1.0.2", "IFA_ADDRESS": "10.1.0.2"}),
        ("fd00::2/64", {"IFA_LOCAL": "fd00::2", "IFA_ADDRESS": "fd00::2", "IFA_FLAGS": 2}),
    ],
)
def test_an_address_is_what_pyroute2_reads(address: str, attrs: dict[str, object]) -> None:
    found = decoded(addr.add("eth0", 7, ip_interface(address)))
    assert (found["index"], found["prefixlen"]) == (7, int(address.split("/")[1]))
    assert {each[0]: each[1] for each in found["attrs"]} == attrs


@pytest.mark.parametrize(
    ("made", "attrs"),
    [
        (Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1")), {"RTA_GATEWAY": "10.1.0.1"}),
        (Route(ip_network("fd01::/48"), priority=9), {"RTA_DST": "fd01::", "RTA_PRIORITY": 9}),
        (Route(ip_network("10.2.0.0/16"), table=1000), {"RTA_DST": "10.2.0.0", "RTA_TABLE": 1000}),
    ],
)
def test_a_route_is_what_pyroute2_reads(made: Route, attrs: dict[str, object]) -> None:
    found = decoded(route.add("eth0", 7, made))
    assert (found["dst_len"], found["type"], found["proto"]) == (made.dst.prefixlen, 1, 3)
    assert {each[0]: each[1] for each in found["attrs"]} == {"RTA_OIF": 7, "RTA_TABLE": 254} | attrs


def test_metrics_of_a_route_are_nested() -> None:
    found = decoded(route.add("eth0", 7, Route(ip_network("10.2.0.0/16"), mtu=1400, advmss=1360)))
    metrics = found.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU"), metrics.get_attr("RTAX_ADVMSS")) == (1400, 1360)

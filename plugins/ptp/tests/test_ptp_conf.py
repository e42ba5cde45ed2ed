"""The configuration keys of the ptp plugin, and what it plans; no kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni.interface.plan import required_ips
from cni.result import Ip, Result, Route
from cni_ptp.conf import PtpConf
from cni_ptp.plan import plan_ends

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "ptp", "ipam": {"type": "host-local"}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a negative MTU": ({"mtu": -5}, '"mtu" must be a whole number from 0 to 65535, got -5'),
    "an MTU that no link can have": (
        {"mtu": 70000},
        '"mtu" must be a whole number from 0 to 65535, got 70000',
    ),
    "an MTU that is a string": (
        {"mtu": "1400"},
        '"mtu" must be a whole number from 0 to 65535, got a string',
    ),
    "itself as IPAM": ({"ipam": {"type": "ptp"}}, '"ipam.type" is "ptp", which gives no addresses'),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(PtpConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_keys_match_in_any_case() -> None:
    conf = read(PtpConf, BASE | {"MTU": 1400, "ipmasq": True})
    assert (conf.mtu, conf.has_masquerade) == (1400, True)


def test_the_container_reaches_its_own_subnet_through_the_gateway() -> None:
    own, gateway = ip_interface("10.1.0.2/24"), ip_address("10.1.0.1")
    default = Route(ip_network("0.0.0.0/0"))
    ends = plan_ends((Ip(own, gateway),), (default,))
    assert not ends.container.prefix_route
    assert ends.container.routes == (
        Route(ip_network("10.1.0.1/32"), scope=253, src=own.ip),
        Route(ip_network("10.1.0.0/24"), gateway, src=own.ip),
        default._replace(gw=gateway),
    )
    assert ends.host.routes == (Route(ip_network("10.1.0.2/32"), scope=254),)
    assert [str(each.address) for each in ends.host.ips] == ["10.1.0.1/32"]


def test_a_gateway_of_two_addresses_is_set_once() -> None:
    gateway = ip_address("fd00::1")
    ips = tuple(Ip(ip_interface(each), gateway) for each in ("fd00::2/64", "fd00::3/64"))
    ends = plan_ends(ips, ())
    assert [str(each.address) for each in ends.host.ips] == ["fd00::1/128"]
    assert [str(each.dst) for each in ends.host.routes] == ["fd00::2/128", "fd00::3/128"]


def test_an_address_without_gateway_is_refused() -> None:
    leased = Result(ips=(Ip(ip_interface("10.1.0.2/24")),))
    with pytest.raises(CniError, match=r"IPAM plugin returned no gateway for 10\.1\.0\.2/24"):
        required_ips(leased, "static", 1, with_gateways=True)

"""A container's IPv6 address is reached from outside as soon as ADD has ended, also behind a new bridge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni.testing.network import Network
from tests.support.patience import patience

if TYPE_CHECKING:
    from cni.testing import Host

# The kernel checks an address for one to two seconds.
AT_ONCE_S = 0.9


def _unchecked(host: Host, link: str) -> list[str]:
    # The kernel makes the link-local address itself, some time after the link has a carrier.
    [shown] = json.loads(host.run(["ip", "-6", "-j", "addr", "show", "dev", link, "scope", "global"]))
    return [each["local"] for each in shown["addr_info"] if each.get("tentative")]


def test_the_first_container_of_a_bridge_is_reached_from_outside_at_once(host: Host) -> None:
    outside = host.outside.sandbox
    net = Network(host, isDefaultGateway=True)
    one = net.add("c1")
    assert _unchecked(host, "br0") == []
    with one.sandbox.serve(80):
        outside.run(["ip", "-6", "route", "add", "fd01::/64", "via", host.outside.host_address6])
        assert outside.dial(one.address6, 80, timeout_s=patience(AT_ONCE_S)).address == host.outside.address6


def test_the_next_container_after_an_empty_bridge_is_reached_at_once(host: Host) -> None:
    outside = host.outside.sandbox
    outside.run(["ip", "-6", "route", "add", "fd01::/64", "via", host.outside.host_address6])
    net = Network(host, isDefaultGateway=True)
    net.add("c1")
    net.delete("c1")
    two = net.add("c2")
    assert _unchecked(host, "br0") == []
    with two.sandbox.serve(80):
        assert outside.dial(two.address6, 80, timeout_s=patience(AT_ONCE_S)).address == host.outside.address6


@pytest.mark.needs_kernel("vlan_filtering")
def test_the_gateway_of_a_vlan_checks_no_address_either(host: Host) -> None:
    Network(host, isDefaultGateway=True, vlan=5).add("c1")
    assert _unchecked(host, "br0.5") == []

"""Masquerading of one family and with exceptions, for ptp: its keys are those of bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.network import SUBNET, SUBNET6, Network

if TYPE_CHECKING:
    from cni.testing import Host


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_exceptions_and_families_hold(host: Host, backend: str) -> None:
    outside = host.outside
    for subnet, address in ((SUBNET, outside.host_address), (SUBNET6, outside.host_address6)):
        outside.sandbox.run(["ip", "route", "add", subnet, "via", address])
    outside.sandbox.run(["ip", "address", "add", "198.51.100.7/32", "dev", "lo"])
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]], "routes": routes}
    keys = {"ipMasqFamilies": ["ipv4"], "ipMasqExcept": ["198.51.100.0/24"], "ipam": ipam}
    net = Network(host, "ptp", ipMasq=True, ipMasqBackend=backend, **keys)
    one = net.add("c1")
    with outside.sandbox.serve(80):
        assert one.sandbox.dial(outside.address, 80).address == outside.host_address
        assert one.sandbox.dial("198.51.100.7", 80).address == one.address
        assert one.sandbox.dial(outside.address6, 80).address == one.address6
    net.check(one).must()
    net.delete("c1")

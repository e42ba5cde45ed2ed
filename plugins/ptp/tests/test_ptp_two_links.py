"""One container with two links on one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.testing.network import GATEWAY6, Network

if TYPE_CHECKING:
    from cni.testing import Host


def test_check_finds_the_routes_of_either_link(host: Host) -> None:
    net = Network(host, "ptp")
    del net.conf["bridge"]
    first = net.add("c1")
    second = net.call("ADD", "c1", ifname="eth1")
    second.must()
    assert f"nexthop via {GATEWAY6} dev eth1" in first.sandbox.run(["ip", "-6", "route", "show", "fd01::/64"])
    net.check(first).must()
    keys = {"prevResult": second.json}
    net.call("CHECK", "c1", ifname="eth1", keys=keys).must()
    assert net.call("PYCNI_REPAIR", "c1", ifname="eth1", keys=keys).must() == {"repaired": [], "failed": []}
    net.delete("c1", ifname="eth1", keys=keys)
    net.check(first).must()

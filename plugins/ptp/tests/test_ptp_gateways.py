"""Routes through other machines of the subnet than the gateway, as the Go plugin makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.testing import GO
from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host

ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "10.9.0.0/16", "gw": "10.1.0.7"},
    {"dst": "10.8.0.0/16", "gw": "10.1.0.1"},
    {"dst": "fd09::/64", "gw": "fd01::7"},
]
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}


def network(host: Host, routes: list[dict[str, Any]]) -> Network:
    net = Network(host, "ptp", cniVersion="1.0.0", ipam={**IPAM, "routes": routes})
    del net.conf["bridge"]
    return net


def test_a_route_may_lead_through_another_machine_of_the_subnet(host: Host) -> None:
    net = network(host, ROUTES)
    one = net.add("c1")
    shown = one.sandbox.run(["ip", "route"]) + one.sandbox.run(["ip", "-6", "route"])
    # The kernel shows this until it has seen the carrier, which may be later.
    shown = shown.replace("linkdown ", "")
    assert "10.9.0.0/16 via 10.1.0.7 dev eth0 onlink" in shown
    assert "10.8.0.0/16 via 10.1.0.1 dev eth0 \n" in shown
    assert "fd09::/64 via fd01::7 dev eth0" in shown
    net.check(one).must()
    if (GO / "ptp").exists():
        net.check(one, bindir=GO).must()
    one.sandbox.run(["ip", "route", "del", "10.9.0.0/16"])
    assert "Expected Route {Dst: 10.9.0.0/16, GW: 10.1.0.7}" in net.check(one).msg
    repaired = net.repair(one).must()
    assert repaired["repaired"] == ["eth0 of the container: added the route to 10.9.0.0/16"]
    net.check(one).must()


def test_a_gateway_outside_the_subnets_is_still_refused(host: Host) -> None:
    net = network(host, [{"dst": "10.9.0.0/16", "gw": "99.0.0.1"}])
    sandbox = host.sandbox("c1")
    answer = net.call("ADD", "c1")
    assert answer.code == 100
    assert "failed to add route '10.9.0.0/16 via 99.0.0.1" in answer.msg
    assert sandbox.links() == ["lo"]

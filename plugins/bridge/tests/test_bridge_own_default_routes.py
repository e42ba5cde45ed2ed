"""The default routes that a container has made itself outlive a network with a `gatewayPriority`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.interface.plan import metrics_of

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

pytestmark = pytest.mark.modes("warm")

# The kernel shows routes without a carrier with a flag that it takes from nobody.
LINES = [
    "link add own0 type veth peer name far0",
    "addr add 10.60.0.2/24 dev own0",
    "link set lo up",
    "link set own0 up",
    "link set far0 up",
    "link add own1 type veth peer name far1",
    "addr add 10.61.0.2/24 dev own1",
    "link set own1 up",
]
TWO_GATEWAYS = "route add default nexthop via 10.60.0.1 nexthop via 10.61.0.1"
# All metrics of priority 0, and one route without a metric.
EVERY_METRIC = [f"route add default via 10.60.0.7 metric {each}" for each in metrics_of(0)]


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    sandbox = host.sandbox("c1")
    configure(sandbox, LINES)
    return sandbox


def configure(sandbox: Sandbox, lines: list[str]) -> None:
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def add(host: Host, sandbox: Sandbox, **keys: Any) -> Answer:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "bridge", "bridge": "br0", "ipam": ipam, **keys}
    return host.plugin("bridge", "ADD", conf, netns=sandbox)


def gateways(sandbox: Sandbox) -> list[list[str]]:
    """List the gateways of the container's own default routes."""
    shown = sandbox.json(["ip", "-j", "route", "show", "default"])
    hops = [each.get("nexthops") or [each] for each in shown]
    return sorted(names for each in hops if (names := [hop["gateway"] for hop in each]) != ["10.1.0.1"])


def test_a_route_by_two_gateways_one_of_them_without_a_carrier(host: Host, sandbox: Sandbox) -> None:
    configure(sandbox, [TWO_GATEWAYS])
    add(host, sandbox, isGateway=True, gatewayPriority=5).must()
    assert gateways(sandbox) == [["10.60.0.1", "10.61.0.1"]]


@pytest.mark.parametrize("address", ["10.1.0.1/24", "10.99.0.1/24"], ids=["success", "failure"])
def test_routes_with_every_metric(host: Host, sandbox: Sandbox, address: str) -> None:
    """The bridge has an address: with another one than the network's, ADD fails and undoes its work."""
    configure(sandbox, [*EVERY_METRIC, "route add default via 10.60.0.7"])
    before = sandbox.run(["ip", "route", "show", "default"])
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.run(["ip", "address", "add", address, "dev", "br0"])
    answer = add(host, sandbox, isGateway=True, gatewayPriority=5)
    assert answer.ok == (address == "10.1.0.1/24")
    assert len(gateways(sandbox)) == len(EVERY_METRIC) + 1
    assert answer.ok or sandbox.run(["ip", "route", "show", "default"]) == before

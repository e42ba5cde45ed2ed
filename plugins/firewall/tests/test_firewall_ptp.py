"""Behind a plugin that makes a link of the host for each container."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import compress
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Attached, Network
from cni.testing.silence import Way, exchange_echoes, list_answered

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


def attach(host: Host, number: int, name: str, **keys: Any) -> Attached:
    """Attach a container to network `number`, which has IPv4 only."""
    ranges = [[{"subnet": f"10.{number}.0.0/24"}]]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    network = Network(host, "ptp", name=f"net{number}", ipam=ipam)
    del network.conf["bridge"]
    one = network.add(name)
    conf = {"cniVersion": "1.1.0", "name": f"net{number}", "type": "firewall", "backend": "nftables", **keys}
    previous = {"prevResult": one.answer.json}
    host.plugin("firewall", "ADD", conf | previous, netns=one.sandbox, container_id=name).must()
    return one


@pytest.mark.parametrize(
    ("isolate", "reach"), [(True, {"outside"}), (False, {"neighbour", "other", "outside"})]
)
def test_a_policy_keeps_neighbours_apart_too(host: Host, isolate: bool, reach: set[str]) -> None:  # noqa: FBT001 - parameter
    one = attach(host, 1, "c1", isolate=isolate)
    targets = {
        "neighbour": attach(host, 1, "c2", isolate=isolate),
        "other": attach(host, 2, "c3", isolate=isolate),
    }
    outside = host.outside
    outside.sandbox.run(["ip", "route", "add", "10.1.0.0/24", "via", outside.host_address])
    gateway = one.answer.json["ips"][0]["gateway"]
    outside.sandbox.call(exchange_echoes, outside.host_address)
    ways = {"outside": Way(outside.address, 80, gateway)}
    with ExitStack() as servers:
        servers.enter_context(outside.sandbox.serve(80))
        for name, target in targets.items():
            target.sandbox.call(exchange_echoes, target.answer.json["ips"][0]["gateway"])
            servers.enter_context(target.sandbox.serve(80))
            ways[name] = Way(target.address, 80, gateway)
        answered = one.sandbox.call(list_answered, list(ways.values()))
    assert set(compress(ways, answered)) == reach

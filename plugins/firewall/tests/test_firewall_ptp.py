"""Behind a plugin that makes a link of the host for each container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Attached, Network
from tests.support.patience import patience

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
    reached = set()
    for name, target in targets.items():
        with target.sandbox.serve(80):
            if one.sandbox.reaches(target.address, 80, timeout_s=patience(1.3)):
                reached.add(name)
    with outside.sandbox.serve(80):
        if one.sandbox.reaches(outside.address, 80, timeout_s=patience(1.3)):
            reached.add("outside")
    assert reached == reach

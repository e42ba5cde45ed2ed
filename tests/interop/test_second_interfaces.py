"""A pod with more interfaces beside that of its cluster, net1 and net2, attached as Multus does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from plugin_table import ROOT
from tests.interop.real_lists import FOLDER, PORT, RUNTIMES, Node, container_id, make_lan, read_args

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.runtime.network import Network
    from cni.testing import Host, Sandbox

T = TypeVar("T")

pytestmark = [pytest.mark.interop, pytest.mark.modes("warm")]

# NetworkAttachmentDefinitions, with what a pod's annotation asks of each.
ATTACHMENTS: list[dict[str, Any]] = json.loads((ROOT / "tests/data/attachments.json").read_text())
CLUSTER = json.loads((FOLDER / "containerd-net.conflist").read_text())
NEEDED = [each["needs_kernel"] for each in ATTACHMENTS if "needs_kernel" in each]
WAIT_S = 10


class Pod:
    """A pod and its interfaces. Each attachment is a row of the table, the first one is the cluster's."""

    def __init__(self, host: Host, rows: list[dict[str, Any]]) -> None:
        self.host = host
        self.sandbox: Sandbox = host.sandbox("pod")
        cluster = {"what": "eth0", "list": CLUSTER, "capabilities": RUNTIMES["containerd"]["capabilities"]}
        self.rows = [cluster, *rows]
        self.node = Node(host, [str(host.bindir)])
        host.run(["mkdir", "-p", "/etc/cni/net.d"])
        for row in self.rows:
            text = json.dumps(row["list"])
            host.run(["tee", f"/etc/cni/net.d/{row['what']}.conflist"], text)
        for row in rows:
            make_lan(host, **row["lan"], peer=f"to-{row['what']}")

    def run(self, row: dict[str, Any], action: Callable[[Runtime, Network, RuntimeArgs], T]) -> T:
        """Call a function of the runtime for one attachment."""
        known = (container_id(self.sandbox), self.sandbox.path, row["what"])
        args = RuntimeArgs(*known, read_args(RUNTIMES["multus"]["args"]), row["capabilities"])
        return self.node.run(row["list"]["name"], action, args)

    def check(self) -> None:
        """Compare all interfaces with their results."""
        for row in self.rows:
            self.node.check(
                row["list"]["name"], RuntimeArgs(container_id(self.sandbox), self.sandbox.path, row["what"])
            )


def _live(pod: Pod) -> None:
    outside = pod.host.outside
    for row in pod.rows:
        result = pod.run(row, Runtime.add)
        address = result["ips"][0]["address"]
        assert [address] == row["capabilities"].get("ips", [address])
        mac = pod.sandbox.json(["ip", "-j", "link", "show", row["what"]])[0]["address"]
        assert mac == row["capabilities"].get("mac", mac)
        row["at"] = address.partition("/")[0]
    pod.check()
    with pod.sandbox.serve(80), outside.sandbox.serve(7):
        assert outside.sandbox.reaches(outside.host_address, PORT, timeout_s=WAIT_S)
        assert pod.sandbox.dial(outside.address, 7).address == outside.host_address
        for row in pod.rows[1:]:
            peer = row["lan"]["address"].partition("/")[0]
            assert outside.sandbox.reaches(row["at"], 80, timeout_s=WAIT_S)
            assert pod.sandbox.dial(peer, 7).address == row["at"]
    for row in reversed(pod.rows):
        pod.run(row, Runtime.delete)


@pytest.mark.parametrize("needs", [False, pytest.param(True, marks=pytest.mark.needs_kernel(*NEEDED))])
def test_net1_and_net2_beside_the_cluster(host: Host, *, needs: bool) -> None:
    host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"])
    assert host.outside
    pod = Pod(host, [each for each in ATTACHMENTS if ("needs_kernel" in each) == needs])
    # What the cluster's pods share stays after the first.
    _live(pod)
    before = host.snapshot()
    _live(pod)
    assert before.differences(host.snapshot()) == []

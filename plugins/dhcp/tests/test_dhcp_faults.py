"""ADD, DEL and GC of the IPAM plugin, killed at every point: DEL, GC or the same call again leave nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from cni.service import control
from cni.state import attachments
from cni.testing.executables import make_warm_bindir
from cni.testing.faults import KILL, TELL, Fault, list_met
from plugin_table import declared, packages
from tests.dhcp_host import KEY, DhcpHost, dhcp, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.testing import Answer

__all__ = ["dhcp"]

pytestmark = pytest.mark.modes("warm")

# Most calls are forked by a worker; a call with a fault is a process of its own, which ends with the fault.
COLD = {"PYCNI_WARM": "off"}


class Calls:
    """Calls of the IPAM plugin for a link that is there already, with faults."""

    def __init__(self, dhcp: DhcpHost, bindir: Path) -> None:
        self._dhcp = dhcp
        self._bindir = bindir
        self.conf = dhcp.network.conf
        self.sandbox = dhcp.host.sandbox("c1")
        link = ["ip", "link", "add", "port1", "type", "veth", "peer", "name", "eth0", "netns", "c1"]
        dhcp.host.run(link)
        dhcp.host.run(["ip", "link", "set", "port1", "master", "br0", "up"])
        self.sandbox.run(["ip", "link", "set", "eth0", "up"])

    def call(self, verb: str, fault: Fault | None = None) -> Answer:
        """Call the plugin; GC has no valid attachment but the one of c2."""
        keys: dict[str, Any] = {}
        if verb == "GC":
            keys = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
        more: dict[str, Any] = {"env": COLD | fault.env, "bindir": self._bindir} if fault else {}
        return self._dhcp.host.plugin(
            "dhcp", verb, self.conf | keys, netns=self.sandbox, container_id="c1", **more
        )

    def points(self, verb: str) -> list[tuple[str, int]]:
        """Return the points that a call meets; the call is made."""
        met = [each.split() for each in list_met(self.call(verb, Fault(TELL, "")))]
        return [(name, int(number)) for name, number in met]

    def kill(self, verb: str, point: tuple[str, int]) -> None:
        """Make a call that is killed at a point."""
        assert self.call(verb, Fault(KILL, *point)).status == -signal.SIGKILL, (verb, point)


@pytest.fixture
def calls(dhcp: DhcpHost, launcher: Path, tmp_path: Path) -> Calls:
    """Return the calls, beside another container whose lease stays."""
    dhcp.network.add("c2")
    return Calls(dhcp, make_warm_bindir(tmp_path, packages(declared()), launcher, with_faults=True))


def _has_released(dhcp: DhcpHost) -> Callable[[], bool]:
    return lambda: dhcp.leased().count("\n") == 1


def test_an_add_killed_anywhere_leaves_what_del_or_gc_removes(dhcp: DhcpHost, calls: Calls) -> None:
    before = dhcp.host.snapshot()
    points = calls.points("ADD")
    assert len(points) >= 8
    assert {"store.unfinished", "store.written", "lock.taken"} <= {name for name, _ in points}
    calls.call("DEL").must()
    for at, point in enumerate(points):
        calls.kill("ADD", point)
        calls.call(("DEL", "GC")[at % 2]).must()
        assert dhcp.host.call(attachments.load, KEY) is None
        assert dhcp.differences(before) == [], point
        # The server has heard of it, whatever it had given.
        wait_for(_has_released(dhcp))


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_removal_killed_anywhere_is_completed_by_the_next(dhcp: DhcpHost, calls: Calls, verb: str) -> None:
    before = dhcp.host.snapshot()
    calls.call("ADD").must()
    points = calls.points(verb)
    assert len(points) >= 2
    for point in points:
        calls.call("ADD").must()
        calls.kill(verb, point)
        calls.call(verb).must()
        assert dhcp.host.call(attachments.load, KEY) is None
        assert dhcp.differences(before) == [], point
        wait_for(_has_released(dhcp))


def test_a_retry_of_a_killed_add_has_one_lease(dhcp: DhcpHost, calls: Calls) -> None:
    points = calls.points("ADD")
    first = dhcp.record()
    # In the middle, and at the end.
    for point in (points[len(points) // 2], points[-1]):
        calls.kill("ADD", point)
        calls.call("ADD").must()
        assert dhcp.record().address == first.address
    assert dhcp.leased().count("\n") == 2
    [running] = dhcp.host.call(control.find)
    wait_for(lambda: len(dhcp.host.call(control.report, running).get("holds", ())) == 2)

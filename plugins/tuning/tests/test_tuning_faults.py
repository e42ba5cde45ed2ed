"""An ADD or a DEL that is cut short at any point: the container's interface gets its values back.

`tests/netns` cuts calls with sysctls short. Here the container stays, and so does its interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import KILL, TELL, TERM, Fault, list_met
from cni.testing.network import Network
from tests.netns.fault_world import faulty_bindir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer

__all__ = ["faulty_bindir"]

CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net1",
    "type": "tuning",
    "mac": "02:00:00:00:00:77",
    "mtu": 1300,
    "promisc": True,
    "txQLen": 77,
    # The kernel shows it as 1.
    "sysctl": {"net.core.somaxconn": "500", "net/ipv4/conf/IFNAME/arp_filter": "0x1"},
}


class Place:
    """A container behind the bridge, on a host whose plugins can be cut short."""

    def __init__(self, host: Host) -> None:
        self.host = host
        attached = Network(host).add("c1")
        self.sandbox = attached.sandbox
        self.end = attached.host_end
        self.conf = CONF | {"prevResult": attached.answer.json}

    def call(self, verb: str, fault: Fault | None = None) -> Answer:
        env = fault.env if fault else {}
        return self.host.plugin("tuning", verb, self.conf, netns=self.sandbox, env=env)

    def collect(self) -> None:
        keys: dict[str, Any] = {"cni.dev/valid-attachments": []}
        self.host.plugin("tuning", "GC", self.conf | keys, container_id="", ifname="").must()

    def state(self) -> list[Any]:
        """Return all that ADD may change."""
        shown = [
            *self.sandbox.json(["ip", "-j", "link", "show", "eth0"]),
            *self.host.json(["ip", "-j", "link", "show", self.end]),
        ]
        keys = ("net/core/somaxconn", "net/ipv4/conf/eth0/arp_filter")
        links = [(each["address"], each["mtu"], each["flags"], each["txqlen"]) for each in shown]
        values = self.sandbox.run(["cat", *(f"/proc/sys/{key}" for key in keys)]).split()
        return [links, values, self.host.run(["find", "/run/pycni/attachments", "-type", "f"], check=False)]

    def list_faults(self, verb: str, action: str) -> list[Fault]:
        """Return the points of a call, each the first and the last time. The call is made for that."""
        met = [each.split(" ") for each in list_met(self.call(verb, Fault(TELL, "")))]
        last = dict(met)
        return [Fault(action, point, int(number)) for point, number in met if number in {"1", last[point]}]


@pytest.fixture
def place(faulty_bindir: Path) -> Iterator[Place]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(faulty_bindir) as host:
        warm.set_up(host.place, workers=1)
        place = Place(host)
        # The first call creates what stays on the host.
        place.call("ADD").must()
        place.call("DEL").must()
        yield place


@pytest.mark.parametrize("cleanup", ["DEL", "GC"])
def test_killed_in_add(place: Place, cleanup: str) -> None:
    before = place.state()
    faults = place.list_faults("ADD", KILL)
    place.call("DEL").must()
    assert {"store.written", "netlink.changed", "sysctl.written"} <= {each.point for each in faults}
    for number, fault in enumerate(faults):
        assert fault.was_met(place.call("ADD", fault))
        if number % 2:
            # The runtime tries again: the values before the first call count.
            place.call("ADD").must()
            place.call("CHECK").must()
        if cleanup == "DEL":
            place.call("DEL").must()
        else:
            place.collect()
        assert place.state() == before, fault


def test_killed_in_del(place: Place) -> None:
    before = place.state()
    place.call("ADD").must()
    faults = place.list_faults("DEL", KILL)
    assert place.state() == before
    for fault in faults:
        place.call("ADD").must()
        assert fault.was_met(place.call("DEL", fault))
        place.call("DEL").must()
        assert place.state() == before, fault


def test_interrupted_in_add(place: Place) -> None:
    """The call itself takes back what it has done."""
    before = place.state()
    faults = [each for each in place.list_faults("ADD", TERM) if each.point != "answer.written"]
    place.call("DEL").must()
    for fault in faults:
        answer = place.call("ADD", fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert place.state() == before, fault

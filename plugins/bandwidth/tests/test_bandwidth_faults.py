"""An ADD or a DEL that is cut short at any point: DEL or GC removes what remains, and an ADD works again."""

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
    "type": "bandwidth",
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 8_000_000,
    "egressBurst": 800_000,
    "unshapedSubnets": ["10.9.0.0/16"],
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
        return self.host.plugin("bandwidth", verb, self.conf, netns=self.sandbox, env=env)

    def collect(self) -> None:
        keys: dict[str, Any] = {"cni.dev/valid-attachments": []}
        self.host.plugin("bandwidth", "GC", self.conf | keys, container_id="", ifname="").must()

    def ifbs(self) -> list[str]:
        return [each for each in self.host.links() if each.startswith("bwp")]

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
        yield Place(host)


def every_point(place: Place, action: str) -> list[Fault]:
    """Return all points of an ADD, also between its messages: each send counts."""
    met = [each.split(" ") for each in list_met(place.call("ADD", Fault(TELL, "")))]
    place.call("DEL").must()
    return [Fault(action, point, int(number)) for point, number in met]


def test_killed_in_add(place: Place) -> None:
    faults = every_point(place, KILL)
    assert len(faults) > 5
    for number, fault in enumerate(faults):
        assert fault.was_met(place.call("ADD", fault))
        # The runtime tries again, calls DEL, or only GC some time.
        if number % 3 == 0:
            place.call("ADD").must()
            place.call("CHECK").must()
        if number % 3 == 1:
            place.collect()
        else:
            place.call("DEL").must()
        assert place.ifbs() == [], fault


def test_killed_in_del(place: Place) -> None:
    place.call("ADD").must()
    for fault in place.list_faults("DEL", KILL):
        place.call("ADD").must()
        assert fault.was_met(place.call("DEL", fault))
        place.call("DEL").must()
        assert place.ifbs() == [], fault


def test_interrupted_in_add(place: Place) -> None:
    """The call itself takes back what it has done."""
    shown = ["tc", "qdisc", "show", "dev", place.end]
    before = place.host.run(shown)
    faults = [each for each in every_point(place, TERM) if each.point != "answer.written"]
    for where in ("root", "ingress"):
        place.host.run(["tc", "qdisc", "del", "dev", place.end, where])
    for fault in faults:
        answer = place.call("ADD", fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert (place.ifbs(), place.host.run(shown)) == ([], before), fault

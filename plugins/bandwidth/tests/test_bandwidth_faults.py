"""An ADD or a DEL that is cut short at any point: DEL or GC removes what remains, and an ADD works again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.faults import KILL, TERM, Fault
from tests.support.chained_faults import ChainedPlace, chained_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CONF: dict[str, Any] = {
    "type": "bandwidth",
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 8_000_000,
    "egressBurst": 800_000,
    "unshapedSubnets": ["10.9.0.0/16"],
}


@pytest.fixture
def place(faulty_bindir: Path) -> Iterator[ChainedPlace]:
    with chained_place(faulty_bindir, CONF) as place:
        yield place


def every_point(place: ChainedPlace, action: str) -> list[Fault]:
    """Return all points of an ADD, also between its messages: each send counts."""
    points = place.every_point("ADD", action)
    place.call("DEL").must()
    return points


def interfaces(place: ChainedPlace) -> list[str]:
    return [each for each in place.host.links() if each.startswith("bwp")]


def test_killed_in_add(place: ChainedPlace) -> None:
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
        assert interfaces(place) == [], fault


def test_killed_in_del(place: ChainedPlace) -> None:
    place.call("ADD").must()
    for fault in place.list_faults("DEL", KILL):
        place.call("ADD").must()
        assert fault.was_met(place.call("DEL", fault))
        place.call("DEL").must()
        assert interfaces(place) == [], fault


def test_interrupted_in_add(place: ChainedPlace) -> None:
    """The call itself takes back what it has done."""
    shown = ["tc", "qdisc", "show", "dev", place.end]
    before = place.host.run(shown)
    faults = [each for each in every_point(place, TERM) if each.point != "answer.written"]
    for where in ("root", "ingress"):
        place.host.run(["tc", "qdisc", "del", "dev", place.end, where])
    for fault in faults:
        answer = place.call("ADD", fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert (interfaces(place), place.host.run(shown)) == ([], before), fault

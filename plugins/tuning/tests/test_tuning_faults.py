"""An ADD or a DEL that is cut short at any point: the container's interface gets its values back.

`tests/netns` cuts calls with sysctls short. Here the container stays, and so does its interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.faults import KILL, TERM
from tests.support.chained_faults import ChainedPlace, chained_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CONF: dict[str, Any] = {
    "type": "tuning",
    "mac": "02:00:00:00:00:77",
    "mtu": 1300,
    "promisc": True,
    "txQLen": 77,
    # The kernel shows it as 1.
    "sysctl": {"net.core.somaxconn": "500", "net/ipv4/conf/IFNAME/arp_filter": "0x1"},
}


@pytest.fixture
def place(faulty_bindir: Path) -> Iterator[ChainedPlace]:
    with chained_place(faulty_bindir, CONF) as place:
        # The first call creates what stays on the host.
        place.call("ADD").must()
        place.call("DEL").must()
        yield place


def state(place: ChainedPlace) -> list[Any]:
    """Return all that ADD may change."""
    shown = [
        *place.sandbox.json(["ip", "-j", "link", "show", "eth0"]),
        *place.host.json(["ip", "-j", "link", "show", place.end]),
    ]
    keys = ("net/core/somaxconn", "net/ipv4/conf/eth0/arp_filter")
    links = [(each["address"], each["mtu"], each["flags"], each["txqlen"]) for each in shown]
    values = place.sandbox.run(["cat", *(f"/proc/sys/{key}" for key in keys)]).split()
    return [links, values, place.host.run(["find", "/run/pycni/attachments", "-type", "f"], check=False)]


@pytest.mark.parametrize("cleanup", ["DEL", "GC"])
def test_killed_in_add(place: ChainedPlace, cleanup: str) -> None:
    before = state(place)
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
        assert state(place) == before, fault


def test_killed_in_del(place: ChainedPlace) -> None:
    before = state(place)
    place.call("ADD").must()
    faults = place.list_faults("DEL", KILL)
    assert state(place) == before
    for fault in faults:
        place.call("ADD").must()
        assert fault.was_met(place.call("DEL", fault))
        place.call("DEL").must()
        assert state(place) == before, fault


def test_interrupted_in_add(place: ChainedPlace) -> None:
    """The call itself takes back what it has done."""
    before = state(place)
    faults = [each for each in place.list_faults("ADD", TERM) if each.point != "answer.written"]
    place.call("DEL").must()
    for fault in faults:
        answer = place.call("ADD", fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert state(place) == before, fault

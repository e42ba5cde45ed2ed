"""The first ADD of a host, which makes what all containers share, is killed: others find all they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing import Host
from cni.testing.faults import KILL
from tests.netns.fault_world import (
    BACKENDS_OF_PARTS,
    CALM,
    CUT,
    WITH_STATE,
    Step,
    World,
    another_world,
    assert_none,
    step_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing.faults import Fault

__all__ = ["another_world"]

# A brief run has both kinds of rules in test_faults_kill.py only.
pytestmark = pytest.mark.full(backend="iptables")

# Those at which something may be there that is shared, or half of it.
_SHARED = {"netlink.changed", "nftables.committed", "process.ended", "sysctl.written"}
# What a plugin that keeps files only shares: the folder of all of them.
_FOLDER = "store.folder-made"


def kill_first(world: World, step: Step, fault: Fault) -> list[str]:
    """Kill an ADD and run DEL. Return what is wrong with the remaining objects and with the next ADDs."""
    world.prepare(step)
    answer = world.call(step.plugin, step.verb, CUT, fault.env)
    wrong = [] if fault.was_met(answer) and not answer.ok else [f"it was not killed: {answer}"]
    world.delete(CUT)
    after_crash = world.host.snapshot()
    for name in (CALM, CUT):
        world.add(name)
    wrong += [] if world.reaches(CUT) and world.is_calm() else ["those that come next are not reached"]
    for name in (CALM, CUT):
        world.delete(name)
    # Fewer objects may remain than after an ordinary DEL. The bridge may still be down, and a set of
    # gateways may be empty still; no more.
    gone = [each for each in after_crash.differences(world.host.snapshot()) if each.startswith("- ")]
    on_host = [each for each in gone if ": host: " in each or "files: " in each]
    unfinished = ('"ifname": "br0"', '"name": "gateway-')
    return wrong + [each for each in on_host if not any(text in each for text in unfinished)]


@pytest.mark.parametrize(("backend", "plugin"), [each for each in BACKENDS_OF_PARTS if each[1] in WITH_STATE])
def test_killed_as_the_first(faulty_bindir: Path, another_world: World, backend: str, plugin: str) -> None:
    step = step_of(plugin, "ADD")
    found = {}
    positions = another_world.positions(step)
    shared = [each for each in positions if each.point in _SHARED]
    for each in shared or [each for each in positions if each.point == _FOLDER]:
        with Host(faulty_bindir) as host:
            found[each] = kill_first(
                World(host, backend, another_world.tally, plugin), step, each._replace(action=KILL)
            )
    assert_none(found)

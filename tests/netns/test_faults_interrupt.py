"""A plugin that is a process of its own and is interrupted, as by Ctrl-C, takes back what it has done."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing.faults import STOP
from tests.netns.fault_pause import ends, paused
from tests.netns.fault_world import COLD, CUT, PARTS, Step, assert_none, busy_world, step_of, world
from tests.support.scene import PORTS

if TYPE_CHECKING:
    from cni.testing import Answer
    from cni.testing.faults import Fault
    from cni.testing.snapshot import Snapshot
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]


def interrupt(world: World, step: Step, fault: Fault) -> Answer:
    """Call a step that stops at a point, and interrupt it. One plugin is started, which takes 0.1 s."""
    is_forked = step.plugin != PORTS
    return paused(world, step, fault, lambda pid: os.kill(pid, signal.SIGINT), is_forked=is_forked)


def interrupt_add(world: World, step: Step, fault: Fault, before: Snapshot) -> list[str]:
    """Interrupt an ADD; tell what went wrong. Afterwards the plugin's part is not there."""
    answer = interrupt(world, step, fault)
    if not fault.was_met(answer):
        return [f"was not reached: {answer}"]
    if answer.ok:
        # It was asked when it had answered, so what it has made stays.
        world.delete_one(step.plugin, CUT)
        return ([] if fault.point == "answer.written" else ["it goes on"]) + world.left(before)
    told = (answer.code, answer.msg)
    wrong = [] if told == (Code.TRY_AGAIN, "interrupted by SIGINT") else [f"it says: {answer}"]
    wrong += [line for line in answer.stderr.splitlines() if "could not undo" in line]
    return wrong + world.left(before)


@pytest.mark.parametrize(
    ("backend", "plugin"), [*(("nftables", each) for each in PARTS), ("iptables", PORTS)]
)
def test_an_add_that_is_interrupted_takes_all_back(busy_world: World, backend: str, plugin: str) -> None:
    world, step = busy_world, step_of(plugin, "ADD")
    positions = [at._replace(action=STOP) for at in ends(world.positions(step, COLD))]
    world.prepare(step)
    before = world.host.snapshot()
    assert_none({at: interrupt_add(world, step, at, before) for at in positions})
    world.delete(CUT)
    world.add(CUT)
    assert world.reaches(CUT)
    assert world.is_calm()


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("plugin", PARTS)
def test_a_del_that_is_interrupted_is_finished_by_the_next(
    busy_world: World, backend: str, plugin: str
) -> None:
    world, step = busy_world, step_of(plugin, "DEL")
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    for at in ends(world.positions(step, COLD)):
        fault = at._replace(action=STOP)
        world.prepare(step)
        answer = interrupt(world, step, fault)
        found[fault] = [] if fault.was_met(answer) else [f"was not reached: {answer}"]
        if not answer.ok and answer.code != Code.TRY_AGAIN:
            found[fault].append(f"it says: {answer}")
        world.delete(CUT)
        found[fault] += world.left(before)
    assert_none(found)
    assert world.is_calm()

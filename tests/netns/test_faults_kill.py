"""A plugin that is killed after any of its changes: DEL or GC cleans up, and the next ADD works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing.faults import KILL
from tests.netns.fault_world import (
    BACKENDS_OF_PARTS,
    BRIEF,
    CALM,
    COLD,
    CUT,
    Step,
    assert_none,
    busy_world,
    step_of,
    world,
)

if TYPE_CHECKING:
    from cni.testing.faults import Fault
    from cni.testing.snapshot import Snapshot
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]


def kill(world: World, step: Step, fault: Fault, env: dict[str, str]) -> list[str]:
    """Kill a step; list what went wrong. An ADD that needs a helper starts it."""
    if step.verb == "ADD":
        world.stop_helpers()
    answer = world.call_at(step, fault, env)
    if not fault.was_met(answer):
        return ["was not reached"]
    return ["the caller takes it for a success"] if answer.ok else []


def try_again(world: World, step: Step, before: Snapshot) -> list[str]:
    """Call the same again at once, then DEL, ADD and DEL; list what went wrong. Prepare the step again."""
    answer = world.call(step.plugin, step.verb, CUT)
    wrong = [] if answer.ok or answer.code == Code.ALREADY_EXISTS else [f"at once again: {answer}"]
    world.delete(CUT)
    wrong += [f"after DEL: {each}" for each in world.left(before)]
    world.add(CUT)
    wrong += [] if world.reaches(CUT) else ["added again it is not reached"]
    world.delete(CUT)
    wrong += [f"after ADD and DEL: {each}" for each in world.left(before)]
    world.prepare(step)
    return wrong


def renew_and_collect(world: World, step: Step, before: Snapshot) -> list[str]:
    """Do as `collect` when the namespace has been replaced."""
    world.renew(CUT)
    return [f"renewed, {each}" for each in collect(world, step, before)]


def collect(world: World, step: Step, before: Snapshot) -> list[str]:
    """Call GC without any DEL; list what remains. Prepare the step again, with an ADD of all plugins."""
    world.collect([CALM])
    left: list[str] = []
    # The kernel removes what is in a namespace after the namespace. A new one is not the old one, and in one
    # that is kept only lo can be as an ADD has left it: the pair would be seen on the host.
    for _ in range(40):
        left = [each for each in world.left(before) if f": {CUT}: " not in each]
        if not left:
            break
        time.sleep(0.05)
    world.prepare_by_all(step)
    return [f"after GC: {each}" for each in left]


# What may come after a kill. With --brief they take turns.
WAYS = (try_again, collect, renew_and_collect)


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_worker_that_is_killed_anywhere(busy_world: World, backend: str, plugin: str, verb: str) -> None:
    world, step = busy_world, step_of(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    positions = world.positions(step, {})
    world.prepare(step)
    for number, position in enumerate(positions):
        fault = position._replace(action=KILL)
        found[fault] = []
        for way in [WAYS[number % len(WAYS)]] if BRIEF else WAYS:
            found[fault] += kill(world, step, fault, {})
            found[fault] += way(world, step, before)
    assert_none(found)
    world.delete(CUT)
    # It starts the helpers that `prepare` has stopped.
    world.add(CUT)
    world.delete(CUT)
    assert world.left(before) == []
    assert world.is_calm()


@pytest.mark.full
@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_process_that_is_killed_anywhere(busy_world: World, backend: str, plugin: str, verb: str) -> None:
    """The same objects remain as after the death of a worker. The plugins before this one stay attached."""
    world, step = busy_world, step_of(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    positions = world.positions(step, COLD)
    world.add(CUT, step.plugin)
    prepared = world.host.snapshot()
    for position in positions:
        fault = position._replace(action=KILL)
        if verb == "DEL":
            world.call(step.plugin, "ADD", CUT).must()
        found[fault] = kill(world, step, fault, COLD)
        world.delete(CUT, step.plugin)
        world.delete_one(step.plugin, CUT)
        found[fault] += world.left(prepared)
    assert_none(found)
    world.delete(CUT)
    assert world.left(before) == []
    assert world.is_calm()

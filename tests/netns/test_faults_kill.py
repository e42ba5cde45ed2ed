"""A plugin that is killed after any of its changes: DEL or GC cleans up, and the next ADD works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing.faults import KILL
from tests.netns.fault_world import (
    BACKENDS_OF_PARTS,
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
    """Call the same again at once, then DEL, then ADD and DEL; list what went wrong."""
    answer = world.call(step.plugin, step.verb, CUT)
    wrong = [] if answer.ok or answer.code == Code.ALREADY_EXISTS else [f"at once again: {answer}"]
    world.delete(CUT)
    wrong += [f"after DEL: {each}" for each in world.left(before)]
    world.add(CUT)
    wrong += [] if world.reaches(CUT) else ["added again it is not reached"]
    world.delete(CUT)
    return wrong + [f"after ADD and DEL: {each}" for each in world.left(before)]


def collect(world: World, before: Snapshot, *, is_renewed: bool) -> list[str]:
    """Call GC without any DEL, with or without the namespace; list what remains.

    The next ADD is that of `prepare_by_all`.
    """
    if is_renewed:
        world.renew(CUT)
    world.collect([CALM])
    left: list[str] = []
    # The kernel removes what is in a namespace after the namespace. A new one is not the old one, and in one
    # that is kept only lo can be as an ADD has left it: the pair would be seen on the host.
    for _ in range(40):
        left = [each for each in world.left(before) if f": {CUT}: " not in each]
        if not left:
            break
        time.sleep(0.05)
    return [f"after GC, {'' if is_renewed else 'not '}renewed: {each}" for each in left]


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_worker_that_is_killed_anywhere(busy_world: World, backend: str, plugin: str, verb: str) -> None:
    world, step = busy_world, step_of(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    positions = world.positions(step, {})
    world.prepare(step)
    for position in positions:
        fault = position._replace(action=KILL)
        found[fault] = kill(world, step, fault, {})
        found[fault] += try_again(world, step, before)
        world.prepare(step)
        for is_renewed in (False, True):
            found[fault] += kill(world, step, fault, {})
            found[fault] += collect(world, before, is_renewed=is_renewed)
            world.prepare_by_all(step)
    assert_none(found)
    world.delete(CUT)
    assert world.left(before) == []
    assert world.is_calm()


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

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
    faulty_bindir,
    faulty_zygote,
    step_of,
    world,
)

if TYPE_CHECKING:
    from cni.testing.faults import Fault
    from cni.testing.snapshot import Snapshot
    from tests.netns.fault_world import World

__all__ = ["busy_world", "faulty_bindir", "faulty_zygote", "world"]


def kill(world: World, step: Step, fault: Fault, env: dict[str, str]) -> list[str]:
    """Kill a step; list what went wrong."""
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
    """Call GC without any DEL, with or without the namespace; list what remains."""
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
    wrong = [f"after GC, {'' if is_renewed else 'not '}renewed: {each}" for each in left]
    world.add(CUT)
    world.delete(CUT)
    return wrong


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("env", [COLD, {}], ids=["cold", "warm"])
def test_killed_anywhere(
    busy_world: World, backend: str, plugin: str, verb: str, env: dict[str, str]
) -> None:
    world, step = busy_world, step_of(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    for position in world.positions(step, env):
        fault = position._replace(action=KILL)
        world.prepare(step)
        found[fault] = kill(world, step, fault, env)
        if env:
            # The same objects remain as after the death of a worker, which other tests cover.
            world.delete(CUT)
            found[fault] += world.left(before)
            continue
        found[fault] += try_again(world, step, before)
        for is_renewed in (False, True):
            world.prepare(step)
            found[fault] += kill(world, step, fault, env)
            found[fault] += collect(world, before, is_renewed=is_renewed)
    assert_none(found)
    assert world.is_calm()

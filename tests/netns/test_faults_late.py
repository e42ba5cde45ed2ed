"""A launcher that is killed while its worker is in a system call: DEL and GC wait for what that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.faults import LATE
from tests.netns.fault_pause import Executed, start
from tests.netns.fault_world import (
    BACKENDS_OF_PARTS,
    CALM,
    CUT,
    Step,
    assert_none,
    busy_world,
    step_of,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing.faults import Fault
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

_TRIES = 5


def go_on(world: World, step: Step, fault: Fault, then: Callable[[], object]) -> bool:
    """Kill the launcher of a call at a point, after which its worker makes one more change, and do `then`.

    Return False if the call never reaches the point.
    """
    for _ in range(_TRIES):
        world.prime(step)
        with start(world, step, fault.env, is_forked=False) as call:
            assert isinstance(call, Executed)
            if is_met := call.reports():
                call.kill()
                then()
        world.forget_worker()
        if is_met:
            return True
        # Another worker has served.
        world.delete_one(step.plugin, CUT)
    return False


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
def test_del_waits_for_an_add_that_goes_on_anywhere(busy_world: World, backend: str, plugin: str) -> None:
    """The plugins before this one stay attached."""
    world, step = busy_world, step_of(plugin, "ADD")
    positions = world.positions(step, {})
    world.prepare(step)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    for position in positions:
        fault = position._replace(action=LATE)
        is_met = go_on(world, step, fault, lambda: world.delete_one(step.plugin, CUT))
        found[fault] = world.left(before) if is_met else ["was not reached"]
    assert_none(found)
    assert world.is_calm()


@pytest.mark.full
@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
def test_gc_waits_for_an_add_that_goes_on_anywhere(busy_world: World, backend: str, plugin: str) -> None:
    """The namespace of the container goes, and what is in it: only the rest of the host counts."""
    world, step = busy_world, step_of(plugin, "ADD")
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    positions = world.positions(step, {})
    world.prepare(step)
    for position in positions:
        fault = position._replace(action=LATE)
        is_met = go_on(world, step, fault, lambda: world.collect([CALM]))
        left = [each for each in world.left(before) if f": {CUT}: " not in each]
        found[fault] = left if is_met else ["was not reached"]
        world.renew(CUT)
        world.prepare_by_all(step)
    assert_none(found)
    assert world.is_calm()

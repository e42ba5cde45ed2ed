"""A container's namespace, or its link, goes while a plugin is at work: no trace of it stays on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.faults import STOP
from tests.netns.fault_pause import ends, paused
from tests.netns.fault_world import (
    BACKENDS,
    BACKENDS_OF_PARTS,
    COLD,
    CUT,
    Step,
    assert_none,
    busy_world,
    step_of,
    world,
)
from tests.support.scene import INTERFACE

if TYPE_CHECKING:
    from cni.testing.faults import Fault
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

# A brief run has both kinds of rules in test_faults_kill.py only.
pytestmark = pytest.mark.full(backend="iptables")


def _positions(world: World, step: Step) -> list[Fault]:
    # Half a file more or less makes no difference to what goes elsewhere.
    found = [at for at in world.positions(step, COLD) if at.point != "store.unfinished"]
    # The way is the same up to the rules: fewer places are enough for the second kind of them.
    return found if world.backend == "nftables" else ends(found)


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_namespace_that_goes_at_any_point(busy_world: World, backend: str, plugin: str, verb: str) -> None:
    world, step = busy_world, step_of(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    for at in _positions(world, step):
        world.prepare(step)
        fault = at._replace(action=STOP)
        answer = paused(world, step, fault, lambda _: world.renew(CUT, settled=False))
        found[fault] = [] if fault.was_met(answer) else [f"was not reached: {answer}"]
        if verb == "DEL" and not answer.ok:
            found[fault].append(f"it fails: {answer}")
        if not answer.ok and "code" not in answer.json:
            found[fault].append(f"it does not say why: {answer}")
        world.delete(CUT)
        # The namespace is a new one.
        found[fault] += [each for each in world.left(before) if f": {CUT}: " not in each]
    assert_none(found)
    assert world.is_calm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_link_that_somebody_removes_at_any_point(busy_world: World, backend: str, verb: str) -> None:
    world, step = busy_world, Step(INTERFACE, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}

    def remove_link(_: int) -> None:
        world.sandboxes[CUT].run(["ip", "link", "delete", "eth0"], check=False)

    for at in _positions(world, step):
        world.prepare(step)
        prepared = world.host.snapshot() if verb == "ADD" else before
        fault = at._replace(action=STOP)
        answer = paused(world, step, fault, remove_link)
        found[fault] = [] if fault.was_met(answer) else [f"was not reached: {answer}"]
        if not answer.ok:
            wrong = world.left(prepared) if verb == "ADD" else [f"it fails: {answer}"]
            found[fault] += [f"without DEL: {each}" for each in wrong]
        world.delete(CUT)
        found[fault] += world.left(before)
    assert_none(found)
    assert world.is_calm()

"""An ADD takes over a dead container's port, and is cut short: the next one gets the port and its packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.firewall import orphans
from cni.firewall.intents import Owner
from cni.testing.faults import KILL, TELL, TERM, Fault, list_met
from tests.netns.fault_world import (
    BACKENDS,
    CALM,
    COLD,
    CUT,
    DEAD,
    Step,
    assert_none,
    busy_world,
    choose,
    world,
)
from tests.support.scene import PORTS

if TYPE_CHECKING:
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

ADD = Step(PORTS, "ADD")


def leave_dead(world: World) -> None:
    """Publish the port for a container of the same network, and let it die without DEL."""
    world.sandboxes[DEAD] = world.host.sandbox(DEAD)
    world.add(DEAD)
    world.sandboxes.pop(DEAD).delete()


def list_positions(world: World) -> list[Fault]:
    """List the points of an ADD that takes over, each where it comes by first and last."""
    leave_dead(world)
    world.prepare(ADD)
    answer = world.call(PORTS, "ADD", CUT, Fault(TELL, "").env | COLD)
    answer.must()
    world.delete(CUT)
    world.collect([CALM])
    return choose(list_met(answer))


def cut_short(world: World, fault: Fault) -> list[str]:
    """Cut a take-over short, then try again as a runtime does; tell what went wrong."""
    leave_dead(world)
    world.prepare(ADD)
    answer = world.call(PORTS, "ADD", CUT, fault.env | COLD)
    if not fault.was_met(answer):
        return [f"was not reached: {answer}"]
    wrong = []
    if fault.action == KILL and answer.ok:
        wrong.append("the caller takes it for a success")
    world.delete(CUT)
    world.add(CUT)
    if not world.reaches(CUT):
        wrong.append("the port leads to the dead container, or nowhere")
    world.delete(CUT)
    world.collect([CALM])
    return wrong


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("action", [KILL, TERM])
def test_a_take_over_that_is_cut_short_anywhere(busy_world: World, backend: str, action: str) -> None:
    world = busy_world
    positions = list_positions(world)
    before = world.host.snapshot()
    found = {}
    for position in positions:
        fault = position._replace(action=action)
        found[fault] = cut_short(world, fault) + world.left(before)
    assert_none(found)
    assert world.is_calm()


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_take_over_that_has_to_wait_too_long_for_a_lock(busy_world: World, backend: str) -> None:
    """A killed call's child may still be changing the dead container's rules."""
    world = busy_world
    leave_dead(world)
    world.prepare(ADD)
    path = orphans._path(Owner("net1", DEAD, "eth0"))  # noqa: SLF001 - the name of the file
    holder = world.host.place.popen(["flock", "--no-fork", str(path), "sh", "-c", "echo; exec sleep 600"])
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "\n"
        assert world.call(PORTS, "ADD", CUT, COLD).code == Code.TRY_AGAIN
        holder.kill()
    world.delete(CUT)
    world.add(CUT)
    assert world.reaches(CUT)

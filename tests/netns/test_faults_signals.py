"""Several signals at once, as systemd sends them to a control group: an undo that has begun is finished."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing.answer import Answer
from cni.testing.faults import STOP
from cni.warm import control
from tests.netns.fault_pause import ends, start, state
from tests.netns.fault_world import COLD, CUT, Step, assert_none, busy_world, world
from tests.support.scene import INTERFACE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.testing.faults import Fault
    from cni.testing.snapshot import Snapshot
    from tests.netns.fault_world import World

    Send = Callable[[int, int], None]

__all__ = ["busy_world", "world"]

ADD_STEP = Step(INTERFACE, "ADD")
MODES = {"cold": COLD, "warm": {}}
# The second and later call of a worker.
FULL = "/dev/full"


def to_both(launcher: int, worker: int) -> None:
    os.kill(worker, signal.SIGTERM)
    os.kill(launcher, signal.SIGTERM)


def to_both_launcher_first(launcher: int, worker: int) -> None:
    os.kill(launcher, signal.SIGTERM)
    time.sleep(0.02)
    os.kill(worker, signal.SIGTERM)


def two_kinds(launcher: int, worker: int) -> None:
    for pid in {launcher, worker}:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)


def twice(launcher: int, worker: int) -> None:
    to_both(launcher, worker)
    os.kill(worker, signal.SIGCONT)
    for _ in range(20):
        time.sleep(0.001)
        for pid in {launcher, worker}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


SENDS = [to_both, to_both_launcher_first, two_kinds, twice]


def paused(world: World, fault: Fault, env: dict[str, str], send: Send, stdout: str = "") -> Answer:
    """Call ADD of bridge, which stops at a point, and send signals to its processes before it goes on."""
    with start(world, ADD_STEP, env | fault.env, stdout=stdout) as call:
        servers = world.servers if env == {} else []
        deadline = time.monotonic() + 30
        stopped: list[int] = []
        while not call.has_ended() and not stopped:
            assert time.monotonic() < deadline
            pids = [each for server in servers for each in control.children(server.pid)] or [call.pid]
            stopped = [pid for pid in pids if state(pid) == "T"]
            time.sleep(0.005)
        if stopped:
            send(call.pid, stopped[0])
            # It may have ended, where it was let go on already.
            with suppress(ProcessLookupError):
                os.kill(stopped[0], signal.SIGCONT)
        done = call.finish(timeout_s=60)
    return Answer(done.returncode, done.stdout, done.stderr)


def stop_at(world: World, fault: Fault, env: dict[str, str], send: Send, before: Snapshot) -> list[str]:
    """Stop an ADD by several signals; tell what went wrong."""
    answer = paused(world, fault, env, send)
    if answer.ok:
        world.delete_one(INTERFACE, CUT)
        return [] if fault.point == "answer.written" or not fault.was_met(answer) else ["it goes on"]
    wrong = (
        [] if answer.code == Code.TRY_AGAIN and "interrupted by SIG" in answer.msg else [f"it says: {answer}"]
    )
    wrong += [line for line in answer.stderr.splitlines() if "could not undo" in line or "Traceback" in line]
    return wrong + world.left(before)


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("send", SENDS)
def test_an_add_that_gets_several_signals_takes_all_back(busy_world: World, how: str, send: Send) -> None:
    world, env = busy_world, MODES[how]
    positions = ends(world.positions(ADD_STEP, env))
    world.prepare(ADD_STEP)
    if not env:
        world.prime(ADD_STEP)
    before = world.host.snapshot()
    assert_none({at: stop_at(world, at._replace(action=STOP), env, send, before) for at in positions})
    world.delete(CUT)
    assert world.is_calm()


def _undo_points(met: Sequence[Fault], world: World, env: dict[str, str]) -> list[Fault]:
    """Return the points that an ADD whose answer cannot be written comes by after its last change."""
    last = {each.point: each.number for each in met}
    found = []
    for point, number in last.items():
        for later in range(number + 1, number + 4):
            fault = met[0]._replace(action=STOP, point=point, number=later)
            if fault.was_met(paused(world, fault, env, lambda *_: None, FULL)):
                found.append(fault)
    return found


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("how", ["cold"])
def test_a_signal_in_the_midst_of_an_undo_does_not_cut_it_short(busy_world: World, how: str) -> None:
    """The undo has begun as the answer could not be written."""
    world, env = busy_world, MODES[how]
    met = world.positions(ADD_STEP, env)
    world.prepare(ADD_STEP)
    before = world.host.snapshot()
    points = _undo_points(met, world, env)
    assert len(points) > 3
    found = {}
    for each in points:
        answer = paused(world, each, env, to_both, FULL)
        found[each] = [line for line in answer.stderr.splitlines() if "could not undo" in line]
        found[each] += world.left(before)
    assert_none(found)

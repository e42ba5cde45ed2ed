"""A container's namespace, or its link, goes while a plugin is at work: no trace of it stays on the host."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing.answer import Answer
from cni.testing.faults import STOP
from cni.testing.place import BARE_ENV
from tests.netns.fault_world import (
    COLD,
    CUT,
    PLUGINS,
    Step,
    assert_none,
    busy_world,
    faulty_bindir,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing.faults import Fault
    from tests.netns.fault_world import World

__all__ = ["busy_world", "faulty_bindir", "world"]


def interrupted(world: World, step: Step, fault: Fault, meanwhile: Callable[[], object]) -> Answer:
    """Call a plugin that pauses at a point while something happens."""
    env = {
        "CNI_COMMAND": step.verb, "CNI_CONTAINERID": CUT, "CNI_NETNS": f"/run/netns/{CUT}",
        "CNI_IFNAME": "eth0", "CNI_PATH": str(world.host.bindir),
    }  # fmt: skip
    program = [str(world.host.bindir / step.plugin)]
    conf = json.dumps(world.conf(step.plugin, CUT))
    process = world.host.place.popen(program, conf, env=BARE_ENV | env | COLD | fault.env)
    deadline = time.monotonic() + 60
    while process.poll() is None and _state(process.pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.002)
    meanwhile()
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def _positions(world: World, step: Step) -> list[Fault]:
    # Half a file more or less makes no difference to what goes elsewhere.
    return [at for at in world.positions(step, COLD) if at.point != "store.unfinished"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_namespace_that_goes_at_any_point(busy_world: World, backend: str, plugin: str, verb: str) -> None:
    world, step = busy_world, Step(plugin, verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}
    for at in _positions(world, step):
        world.prepare(step)
        fault = at._replace(action=STOP)
        answer = interrupted(world, step, fault, lambda: world.renew(CUT))
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


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_link_that_somebody_removes_at_any_point(busy_world: World, backend: str, verb: str) -> None:
    world, step = busy_world, Step("bridge", verb)
    before = world.host.snapshot()
    found: dict[Fault, list[str]] = {}

    def remove_link() -> None:
        world.sandboxes[CUT].run(["ip", "link", "delete", "eth0"], check=False)

    for at in _positions(world, step):
        world.prepare(step)
        prepared = world.host.snapshot()
        fault = at._replace(action=STOP)
        answer = interrupted(world, step, fault, remove_link)
        found[fault] = [] if fault.was_met(answer) else [f"was not reached: {answer}"]
        if not answer.ok:
            wrong = world.left(prepared) if verb == "ADD" else [f"it fails: {answer}"]
            found[fault] += [f"without DEL: {each}" for each in wrong]
        world.delete(CUT)
        found[fault] += world.left(before)
    assert_none(found)
    assert world.is_calm()

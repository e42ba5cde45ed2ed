"""Calls that pause at a point while something happens to them."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni.testing.answer import Answer
from cni.testing.place import BARE_ENV
from tests.netns.fault_world import COLD, CUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.testing.faults import Fault
    from tests.netns.fault_world import Step, World


def paused(world: World, step: Step, fault: Fault, meanwhile: Callable[[int], object]) -> Answer:
    """Call a plugin, a process of its own, that stops at a point; `meanwhile` is given its number."""
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
    meanwhile(process.pid)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def ends(faults: Sequence[Fault]) -> list[Fault]:
    """Return the first and the last time of each point."""
    kept = {*{at.point: at for at in faults}.values(), *{at.point: at for at in faults[::-1]}.values()}
    return [at for at in faults if at in kept]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""

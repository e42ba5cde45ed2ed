"""Calls that pause at a point while something happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cni.testing.answer import Answer
from cni.testing.place import BARE_ENV
from tests.netns.fault_world import COLD, CUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cni.testing.faults import Fault
    from cni.testing.place import Place
    from cni.testing.zygote import ForkedCall
    from tests.netns.fault_world import Step, World


class Executed:
    """A call that starts the executable, with what `ForkedCall` has."""

    def __init__(self, place: Place, argv: Sequence[str], stdin: str, env: Mapping[str, str]) -> None:
        self._process = place.popen(argv, stdin, env=env)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def reports(self) -> bool:
        """Wait for the first line on stderr. Return False if the call ends without one."""
        assert self._process.stderr
        return bool(self._process.stderr.readline())

    def kill(self) -> None:
        """Kill the process, and wait for its end. Others may still write to its output."""
        self._process.kill()
        self._process.wait()

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def finish(self, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end of the call."""
        out, err = self._process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess([], self._process.returncode, out, err)


def start(
    world: World, step: Step, env: Mapping[str, str], *, is_forked: bool = True, stdout: str = ""
) -> Executed | ForkedCall:
    """Start a call for the container whose calls are cut short; `stdout` is a file to write to."""
    env = {
        **BARE_ENV, "CNI_COMMAND": step.verb, "CNI_CONTAINERID": CUT, "CNI_NETNS": f"/run/netns/{CUT}",
        "CNI_IFNAME": "eth0", "CNI_PATH": str(world.host.bindir), **env,
    }  # fmt: skip
    place, program = world.host.place, world.host.bindir / step.plugin
    stdin = json.dumps(world.conf(step.plugin, CUT))
    zygote = world.zygote if is_forked else None
    forked = zygote and zygote.start(place, program, stdin, env, stdout=stdout)
    redirected = ["sh", "-c", f'exec "$0" >{stdout}'] if stdout else []
    return forked or Executed(place, [*redirected, str(program)], stdin, env)


def paused(
    world: World, step: Step, fault: Fault, meanwhile: Callable[[int], object], *, is_forked: bool = True
) -> Answer:
    """Call a plugin, a process of its own, that stops at a point; `meanwhile` is given its number."""
    with start(world, step, COLD | fault.env, is_forked=is_forked) as call:
        deadline = time.monotonic() + 60
        while not call.has_ended() and state(call.pid) != "T":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # A call that has ended did not reach the point, and its number may be that of another process.
        if not call.has_ended():
            meanwhile(call.pid)
            os.kill(call.pid, signal.SIGCONT)
        done = call.finish(timeout_s=120)
    return Answer(done.returncode, done.stdout, done.stderr)


def ends(faults: Sequence[Fault]) -> list[Fault]:
    """Return the first and the last time of each point."""
    kept = {*{at.point: at for at in faults}.values(), *{at.point: at for at in faults[::-1]}.values()}
    return [at for at in faults if at in kept]


def state(pid: int) -> str:
    """Return the letter of a process's state, T for stopped; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""

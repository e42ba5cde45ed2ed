"""Many workers at once, and a loop that kills launchers and workers of the warm server at random."""

from __future__ import annotations

import os
import pickle
import random
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.warm import control
from cni.warm.worker_pool import PROCESS_NAME
from tests.churn import worker, world
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 32
_VICTIMS = {*world.PLUGINS, PROCESS_NAME}
_REPORTS = Path("/run/sandboxes.reports")


class Server(NamedTuple):
    """A warm server: its own memory in KiB, open files, threads."""

    pid: int
    memory_kib: int
    files: int
    threads: int


@dataclass
class Churned:
    """The operations of a run. `middle` is the warm server after half of the time, `end` after all of it."""

    seconds: float
    operations: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    cut_short: int = 0
    abandoned: int = 0
    attached: list[worker.Left] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    middle: Server | None = None
    end: Server | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The figures that pytest prints at the end."""
        return {
            "operations": self.operations.total(),
            "killed launchers": self.killed["launcher"],
            "killed workers": self.killed["worker"],
            "killed servers": self.killed["server"],
            "calls cut short": self.cut_short,
            "abandoned attachments": self.abandoned,
            "minutes": round(self.seconds / 60, 2),
        }


def churn(bindir: Path, seconds: float, *, abandons: bool) -> Churned:
    """Run all workers for some seconds; runs in a child on the host."""
    _REPORTS.mkdir()
    start, done = time.monotonic(), Churned(seconds)
    paths = [_REPORTS / str(number) for number in range(WORKERS)]
    workers = [
        worker.start(bindir, number, start + seconds, path, abandons=abandons)
        for number, path in enumerate(paths)
    ]
    with _precedence():
        _kill_now_and_then(workers, start, done)
    # On a busy machine the loop may not have come to it, or calls since the last kill may all have been cold.
    if not (done.middle or look_at_server()):
        control.start(bindir / scene.LOOPBACK)
    done.middle = done.middle or look_at_server()
    for pid in workers:
        os.waitpid(pid, 0)
    done.end = look_at_server()
    for path in paths:
        tally: worker.Tally = pickle.loads(path.read_bytes())  # noqa: S301 - written by our own child
        path.unlink()
        done.operations.update(tally.operations)
        done.cut_short += tally.cut_short
        done.abandoned += tally.abandoned
        done.unexpected += tally.unexpected
        done.attached += [tally.attached] if tally.attached else []
    _REPORTS.rmdir()
    return done


@contextmanager
def _precedence() -> Iterator[None]:
    """Take the processor before all workers: on a busy machine the loop that kills would hardly get it."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _kill_now_and_then(workers: list[int], start: float, done: Churned) -> None:
    """Kill launchers and workers of the server; the server itself in the first half of the time only."""
    chance = random.Random()  # noqa: S311 - any moment will do
    next_server = start + done.seconds / 8
    while (now := time.monotonic()) < start + done.seconds:
        time.sleep(chance.uniform(0, 0.3))
        if now > start + done.seconds / 2:
            done.middle = done.middle or look_at_server()
        elif now > next_server:
            next_server += max(done.seconds / 8, 2)
            for server in control.find():
                done.killed["server"] += world.kill(server.pid, parent_of(server.pid))
        if chance.random() < 0.6:
            # On a busy machine most of them wait: one that has a call is chosen.
            parents = chance.sample(workers, len(workers))
            done.killed["launcher"] += any(_kill_child(each, chance) for each in parents)
        else:
            for server in control.find():
                done.killed["worker"] += _kill_child(server.pid, chance)


def _kill_child(parent: int, chance: random.Random) -> bool:
    """Kill a launcher, or a worker of the server; the programs that make sandboxes are ours to keep."""
    found = [pid for pid in world.children(parent) if world.name(pid) in _VICTIMS]
    return bool(found) and world.kill(chance.choice(found), parent)


def parent_of(pid: int) -> int:
    """Return the parent's process ID: proc(5), stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def look_at_server() -> Server | None:
    """Return the resources of the warm server without its workers, None if no server runs."""
    for each in control.find():
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{each.pid}/status").read_text().splitlines()
        )
        files = len(list(Path(f"/proc/{each.pid}/fd").iterdir()))
        return Server(each.pid, int(status["RssAnon"].split()[0]), files, int(status["Threads"]))
    return None

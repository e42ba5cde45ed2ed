"""The warm servers of this machine as their operator sees them: which run, what they cost, end them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.warm import report

if TYPE_CHECKING:
    from collections.abc import Callable

_WITHIN_S = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A server; `path` is its status file."""

    path: Path
    pid: int

    @property
    def build(self) -> str:
        """The build it belongs to, which its files are named after."""
        return self.path.stem.rpartition("-")[0]


def find() -> list[Running]:
    """Give the servers that run, those of other namespaces under the same /run included."""
    found = [Running(path, report.holder(path)) for path in sorted(report.FOLDER.glob(f"*{report.SUFFIX}"))]
    return [each for each in found if each.pid]


def stop(server: Running) -> bool:
    """End a server; calls in hand are finished. False if it was still there after 5 seconds."""
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    return _wait(lambda: not report.holder(server.path))


def status(server: Running) -> dict[str, Any]:
    """Ask a server for uptime in seconds, requests and workers; adds what it costs, in KiB of PSS.

    One that does not answer within 5 seconds is told by `build` and `pid` only.
    """
    known = {"build": server.build, "pid": server.pid}
    before = report.read(server.path).get("asked", 0)
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGUSR1)
    if not _wait(lambda: report.read(server.path).get("asked", 0) != before):
        return known
    told = report.read(server.path)
    told.pop("asked")
    return {**known, **told, "pss_kib": sum(map(pss_kib, [server.pid, *told["workers"]]))}


def children(pid: int) -> list[int]:
    """Give a process's children: the workers of a server. proc(5), task/TID/children."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def pss_kib(pid: int) -> int:
    """Give a process's share of memory, 0 when it has gone: proc(5), smaps_rollup."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _wait(is_done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _WITHIN_S
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

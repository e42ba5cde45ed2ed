"""The leak check: compare the process before and after a call."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
# Lines of proc(5), status: rights, signals and threads.
_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "Threads", "NoNewPrivs", "Seccomp:"),
    *("SigPnd", "SigBlk", "SigIgn", "SigCgt", "Cap"),
)


def snapshot() -> dict[str, object]:
    """Return everything that a call must not change, by name. It takes 0.3 ms: call it after the response."""
    return {
        "descriptors": _links("/proc/self/fd"),
        "namespaces": _links("/proc/thread-self/ns"),
        "root or working directory": [Path(f"/proc/self/{each}").readlink() for each in ("root", "cwd")],
        "threads, signals, umask or rights": _status(),
        "children": _has_children(),
        "timers": [signal.getitimer(each) for each in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL)],
        "limits": [resource.getrlimit(each) for each in _LIMITS],
        "priority": (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)),
        "environment": dict(os.environ),
        "import path": list(sys.path),
    }


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the names of the values that differ."""
    return [name for name, value in before.items() if after[name] != value]


def _links(folder: str) -> dict[str, str]:
    links = {}
    for name in os.listdir(folder):  # noqa: PTH208 - hot path, names only
        try:
            links[name] = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - hot path
        except OSError:
            # The descriptor that listed the folder is closed; other files are not links.
            continue
    return links


def _status() -> list[str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - hot path
        return [line for line in file if line.startswith(_STATUS)]


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True

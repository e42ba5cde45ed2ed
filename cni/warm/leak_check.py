"""What a call could leave behind in the process that served it, taken down to compare."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
# proc(5): rights, signals and the like, as the kernel sees them.
_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "Threads", "NoNewPrivs", "Seccomp:"),
    *("SigPnd", "SigBlk", "SigIgn", "SigCgt", "Cap"),
)


def take() -> dict[str, object]:
    """Give all that must be as it was, by name. It costs 0.3 ms, so it belongs after the answer."""
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
    """Name what is not as it was."""
    return [name for name, value in before.items() if after[name] != value]


def _links(folder: str) -> dict[str, str]:
    found = {}
    for name in os.listdir(folder):  # noqa: PTH208 - names only, and often
        try:
            found[name] = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - often
        except OSError:
            # The descriptor by which the folder was read has gone; other files are no links.
            continue
    return found


def _status() -> list[str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - often
        return [line for line in file if line.startswith(_STATUS)]


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True

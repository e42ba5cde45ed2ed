"""Time limits and waits that mean the same on an idle machine and on a busy one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni.testing.place import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer than any busy machine needs for what takes milliseconds.
LONG_S = 120
_PAUSE_S = 0.01


def patience(seconds: float) -> float:
    """Return a time limit: `seconds` if no process waits for a core, else longer by how many share a core."""
    one_minute, *_, processes, _ = Path("/proc/loadavg").read_text().split()
    running = max(float(one_minute), int(processes.split("/")[0]))
    return seconds * SLOWNESS * max(1.0, running / len(os.sched_getaffinity(0)))


def wait_until(condition: Callable[[], object], *, within_s: float = LONG_S) -> None:
    """Wait until a condition holds. Fail the test if it does not hold in time."""
    deadline = time.monotonic() + within_s * SLOWNESS
    while not condition():
        assert time.monotonic() < deadline, f"{condition} does not hold after {within_s:g} s"
        time.sleep(_PAUSE_S)

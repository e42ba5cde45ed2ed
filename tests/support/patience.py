"""Time limits that mean the same on an idle machine and on a busy one."""

from __future__ import annotations

import os
from pathlib import Path

from cni.testing.place import SLOWNESS


def patience(seconds: float) -> float:
    """Return a time limit: `seconds` if no process waits for a core, else longer by how many share a core."""
    one_minute, *_, processes, _ = Path("/proc/loadavg").read_text().split()
    running = max(float(one_minute), int(processes.split("/")[0]))
    return seconds * SLOWNESS * max(1.0, running / len(os.sched_getaffinity(0)))

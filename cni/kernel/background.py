"""Background tasks: system calls that continue in a thread after the response.

A process waits until such a task has ended before it serves another call or forks. A process that exits waits
too, because a thread within a system call cannot be stopped.
"""

from __future__ import annotations

import _thread
import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_S = 0.001
_SETTLED_WITHIN_S = 5


def prepare_for_fork() -> None:
    """Start and join one thread, so that libc installs its internal signal handlers before a fork."""
    start(lambda: None)
    wait(_SETTLED_WITHIN_S)


def start(work: Callable[[], None]) -> None:
    """Run `work`, which raises nothing, in a thread of its own; in this thread if none can be started."""

    def run() -> None:
        # The main thread handles signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        work()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:
        work()


def wait(within_s: float) -> bool:
    """Wait until the calling thread is the process's only one; return whether it is."""
    deadline = time.monotonic() + within_s
    while count_threads() > 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def count_threads() -> int:
    """Return the number of this process's threads, with those that Python does not know."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only the number matters

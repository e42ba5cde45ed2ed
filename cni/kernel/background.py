"""Work that goes on after the answer, in a thread: for calls of the kernel that nobody has to wait for.

A process that is to serve another call, or to fork, waits until that work has ended; one that exits does
so too, as a thread within the kernel cannot be stopped.
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
    """Start and join one thread so that libc installs its internal signal handlers before we fork."""
    start(lambda: None)
    wait(_SETTLED_WITHIN_S)


def start(work: Callable[[], None]) -> None:
    """Run `work`, which raises nothing, in a thread of its own; here and now where none can be had."""

    def run() -> None:
        # Signals are for the thread that knows what they are about.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        work()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:
        work()


def wait(within_s: float) -> bool:
    """Wait until the calling thread is the process's only one; tells whether it is."""
    deadline = time.monotonic() + within_s
    while count_threads() > 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def count_threads() -> int:
    """Give the number of this process's threads, those too that Python does not know."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only their number matters

"""A small process that forks for the test process, which is large: a fork copies the tables of its memory.

A test process has collected thousands of tests, and each of its forks takes up to 10 ms of CPU. The agent has
imported this package only. It forks one child for each request.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import resource
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PROGRAM = """
import sys
sys.path[:0] = {paths!r}
from cni.testing import agent
agent.serve()
"""
# The most bytes of a request; the kernel's limit for a message is above that.
LARGEST = 64 << 10


class Agent:
    """The agent of one process. It ends with that process."""

    # CPU seconds of the children of agents that have reported them: nobody waits for these processes.
    cpu_s = 0.0

    def __init__(self) -> None:
        self._client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [path for path in sys.path if path and os.path.isdir(path)]  # noqa: PTH112 - as in executables
        with server:
            self._process = subprocess.Popen(
                [os.path.realpath(sys.executable), "-IS", "-c", _PROGRAM.format(paths=paths)],
                stdin=server.fileno(),
                cwd="/",
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._client.close()
        self._process.wait()

    def start(self, request: bytes, fds: Sequence[int]) -> None:
        """Let a child do what `pack` has packed, and pass it copies of descriptors."""
        socket.send_fds(self._client, [request], fds)


class Child:
    """A child of an agent that goes on until the test process ends it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Without it the number could be another process's by the time of the signal.
        self._process = os.pidfd_open(pid)

    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return not select.select([self._process], [], [], 0)[0]

    def end(self) -> None:
        """Kill the process and wait for its end. Only once."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        select.select([self._process], [], [])
        os.close(self._process)


@cache
def _of(_pid: int) -> Agent:
    return Agent()


def own() -> Agent:
    """Return the agent of this process. Start it if there is none."""
    return _of(os.getpid())


def pack(work: Callable[..., object], *args: Any) -> bytes:
    """Return a request: the child calls `work` with its descriptors and the other arguments."""
    return pickle.dumps((work, args))


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children so far."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def serve() -> NoReturn:
    """Fork a child for each request that arrives at descriptor 0, until the test process ends."""
    # All that children run is imported once, here.
    import cni.testing  # noqa: F401 - see above

    server = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        message, fds, _, _ = socket.recv_fds(server, LARGEST, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            try:
                _become_child(server, message, fds)
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


def _become_child(server: socket.socket, message: bytes, fds: list[int]) -> None:
    server.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A child ends before a collection would save anything.
    gc.disable()
    work, args = pickle.loads(message)  # noqa: S301 - written by the test process
    work(fds, *args)

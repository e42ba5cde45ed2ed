"""The worker pool of a server: workers are forked before they are needed, and replaced when they end.

A fork competes with running calls for the cores, and a new worker's first call takes longer. So a burst is
served by as many workers as keep the cores busy. More are forked only when no worker finishes a call for a
while: all of them may be waiting, perhaps for a call that one of their plugins has made.
Each worker has a slot with an nfnetlink socket, which the server opens and keeps: after the last copy of such
a socket is closed, the kernel and the next transaction in it wait for 10 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cni.kernel import link_removal, nfnetlink
from cni.kernel.nfnetlink import Nfnetlink
from cni.warm.log import log
from cni.warm.scoreboard import Scoreboard, Slot
from cni.warm.worker import RETIRE, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from cni.warm.connection import Connection
    from cni.warm.settings import Settings

MAX_WORKERS = 64
# Time in seconds without a finished call after which a burst gets another worker.
BURST_FORK_DELAY_S = 0.05
# Time in seconds before the next fork, after a worker that ended before it served a call.
RESPAWN_DELAY_S = 1
_WORKERS_PER_CORE = 2
PROCESS_NAME = "pycni-worker"
FAILED = 70  # a worker's exit status after an internal error: <sysexits.h>, EX_SOFTWARE
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class _Entry(NamedTuple):
    """A worker as the server knows it: its slot, the calls served there before, its nfnetlink socket."""

    slot: int
    calls_before: int
    socket: Nfnetlink | None


class WorkerPool:
    """Workers at a listening socket; `alarm` is readable when no worker is idle any more.

    `connect` creates a worker's `Connection` on that socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], Connection],
        table: Mapping[str, str],
        settings: Settings,
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._table = table
        self._settings = settings
        self.alarm, self._alarm_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._entries: dict[int, _Entry] = {}
        self._spare_sockets: list[Nfnetlink] = []
        self._scoreboard = Scoreboard(MAX_WORKERS)
        self._last_call = time.monotonic()
        self._cores = len(os.sched_getaffinity(0))
        self._no_fork_until = 0.0
        self._retired: set[int] = set()
        self.requests = 0
        self.forked = 0

    @property
    def workers(self) -> list[int]:
        """The workers' process IDs."""
        return sorted(self._entries)

    @property
    def busy(self) -> int:
        """The number of workers with a connection or a background task."""
        return self._scoreboard.busy

    def idle_for(self) -> float:
        """Return the time in seconds since the last call, 0 while a call runs."""
        return 0 if self.busy else time.monotonic() - self._last_call

    def is_saturated(self) -> bool:
        """Return whether calls may be waiting although enough workers for all cores are busy."""
        enough = max(self._settings.workers, _WORKERS_PER_CORE * self._cores)
        return self._scoreboard.idle == 0 and len(self._entries) - self._scoreboard.background >= enough

    def fill(self) -> bool:
        """Fork missing workers. Return False if forking fails and must pause."""
        if time.monotonic() < self._no_fork_until:
            return False
        if self.is_saturated() and time.monotonic() - self._last_call < BURST_FORK_DELAY_S:
            return True
        idle = 1 if self.busy else self._settings.workers
        for _ in range(min(idle - self._scoreboard.idle, MAX_WORKERS - len(self._entries))):
            try:
                self._fork()
            except OSError as error:
                log(f"cannot fork a worker: {error}")
                return False
        return True

    def shrink(self) -> None:
        """Retire the newest workers if a burst that needed them is over."""
        if self.busy == 0:
            for pid in list(self._entries)[self._settings.workers :]:
                self._retire(pid)

    def recycle(self) -> None:
        """If the pool is idle, retire one worker that has served calls: a new worker needs less memory.

        One at a time, so that others remain idle meanwhile.
        """
        if self._retired or self.idle_for() < self._settings.rest_seconds:
            return
        for pid, entry in self._entries.items():
            if self._scoreboard.calls_in(entry.slot) > entry.calls_before:
                self._retire(pid)
                return

    def retire_all(self) -> None:
        """Retire all workers: at once, or after the call that they serve."""
        for pid in self.workers:
            self._retire(pid)

    def _retire(self, pid: int) -> None:
        self._retired.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, RETIRE)

    def update(self) -> None:
        """Read the scoreboard, and reap workers that have ended."""
        with suppress(BlockingIOError):
            os.read(self.alarm, 4096)
        if self._scoreboard.calls != self.requests:
            self.requests = self._scoreboard.calls
            self._last_call = time.monotonic()
        while self._entries:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            entry = self._entries.pop(pid, None)
            if entry:
                self._free(pid, entry)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) != RETIRE:
                log(f"worker {pid} was killed by signal {os.WTERMSIG(status)}")

    def _free(self, pid: int, entry: _Entry) -> None:
        is_unused = (
            self._scoreboard.is_idle(entry.slot)
            and self._scoreboard.calls_in(entry.slot) == entry.calls_before
        )
        if is_unused and pid not in self._retired:
            # The next worker may fail the same way: without a pause the server would fork in a loop.
            self._no_fork_until = time.monotonic() + RESPAWN_DELAY_S
        self._retired.discard(pid)
        self._scoreboard.set_vacant(entry.slot)
        self._spare_sockets += [entry.socket] if entry.socket else []

    def _fork(self) -> None:
        nfnetlink_socket = self._spare_sockets.pop() if self._spare_sockets else _open_socket()
        slot = self._scoreboard.vacant_slot()
        entry = _Entry(slot, self._scoreboard.calls_in(slot), nfnetlink_socket)
        server = os.getpid()
        # Set before the fork: the new worker may be busy at once.
        self._scoreboard.set_idle(entry.slot)
        try:
            pid = os.fork()
        except OSError:
            self._scoreboard.set_vacant(entry.slot)
            self._spare_sockets += [nfnetlink_socket] if nfnetlink_socket else []
            raise
        if pid == 0:
            self._run_worker(server, entry)
        self._entries[pid] = entry
        self.forked += 1

    def _run_worker(self, server: int, entry: _Entry) -> NoReturn:
        status = FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, RETIRE, 0, 0, 0)
            self._close_others(entry.socket)
            # Otherwise the server died before PR_SET_PDEATHSIG, and its signal never comes.
            if os.getppid() == server:
                defaults = {link_removal.ANSWER_VARIABLE: self._settings.answer_del}
                slot = Slot(self._scoreboard, entry.slot, self._alarm_writer)
                worker = Worker(self._listener, self._connect(), self._table, slot, defaults)
                worker.serve(self._settings.calls)
            status = 0
        except BaseException as error:  # noqa: BLE001 - the child must not continue as the server
            log(f"worker ends: unexpected {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _close_others(self, nfnetlink_socket: Nfnetlink | None) -> None:
        """Close the descriptors of the server and of other workers; use `nfnetlink_socket` for calls."""
        os.close(self.alarm)
        for other in (*self._spare_sockets, *(entry.socket for entry in self._entries.values())):
            if other:
                other.close()
        if nfnetlink_socket:
            nfnetlink.keep(nfnetlink_socket)


def _open_socket() -> Nfnetlink | None:
    """Open a socket for a new slot; None if the kernel has no nfnetlink: calls that need it report that."""
    try:
        return Nfnetlink()
    except OSError:
        return None

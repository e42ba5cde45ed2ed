"""The workers of a server: forked before they are needed, replaced when they end.

A fork competes with the calls in hand for the cores, and a new worker takes longer for its first call. So a
rush is served by as many workers as keep the cores busy; more are made only when none gets free for a while,
as they may all be waiting for something, be it for a call of a plugin of theirs.
Each worker has a place, and with it an nfnetlink socket that the server opened and keeps: closing
the last copy of one would make the kernel, and the next transaction in it, wait for 10 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cni.kernel import link, nfnetlink
from cni.kernel.nfnetlink import Nfnetlink
from cni.warm.log import log
from cni.warm.scoreboard import Board, Post
from cni.warm.worker import LET_GO, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from cni.warm.connection import Door
    from cni.warm.settings import Settings

MOST_WORKERS = 64
# How long, in seconds, no worker may have finished a call before a rush gets another one.
PATIENCE_S = 0.05
# How long, in seconds, no worker is made after one that ended before it had anything to do.
REST_S = 1
_WORKERS_PER_CORE = 2
PROCESS_NAME = "pycni-worker"
FAILED = 70  # a worker's exit status after a fault of its own: <sysexits.h>, EX_SOFTWARE
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class _Member(NamedTuple):
    """A worker as the server knows it: its place on the board, the calls served there before, its socket."""

    place: int
    before: int
    socket: Nfnetlink | None


class Crew:
    """Workers at a listening socket; `alarm` is readable when no worker waits any more.

    `door` makes a worker's door to that socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        door: Callable[[], Door],
        table: Mapping[str, str],
        settings: Settings,
    ) -> None:
        self._listener = listener
        self._door = door
        self._table = table
        self._settings = settings
        self.alarm, self._alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._members: dict[int, _Member] = {}
        self._sockets: list[Nfnetlink] = []
        self._board = Board(MOST_WORKERS)
        self._last_call = time.monotonic()
        self._cores = len(os.sched_getaffinity(0))
        self._rests_until = 0.0
        self._dismissed: set[int] = set()
        self.requests = 0
        self.made = 0

    @property
    def workers(self) -> list[int]:
        """Their process IDs."""
        return sorted(self._members)

    @property
    def busy(self) -> int:
        """How many have a connection."""
        return self._board.busy

    def idle_for(self) -> float:
        """Give the time in seconds for which nobody has called, 0 while a call is in hand."""
        return 0 if self.busy else time.monotonic() - self._last_call

    def is_stretched(self) -> bool:
        """Tell whether calls may be waiting, though as many workers as the cores can serve are at it."""
        enough = max(self._settings.workers, _WORKERS_PER_CORE * self._cores)
        return self._board.idle == 0 and len(self._members) - self._board.late >= enough

    def fill(self) -> bool:
        """Fork the workers that are missing; False when that should rest for a while, as it fails."""
        if time.monotonic() < self._rests_until:
            return False
        if self.is_stretched() and time.monotonic() - self._last_call < PATIENCE_S:
            return True
        wanted = 1 if self.busy else self._settings.workers
        for _ in range(min(wanted - self._board.idle, MOST_WORKERS - len(self._members))):
            try:
                self._fork()
            except OSError as error:
                log(f"could not make a worker: {error}")
                return False
        return True

    def shrink(self) -> None:
        """Let those go that were made for a rush which is over."""
        if self.busy == 0:
            for pid in self.workers[self._settings.workers :]:
                self._dismiss(pid)

    def rest(self) -> None:
        """Let a worker go that has served calls, once nobody calls any more: a new one needs less memory.

        One at a time, so that others wait meanwhile.
        """
        if self._dismissed or self.idle_for() < self._settings.rest_seconds:
            return
        for pid, each in self._members.items():
            if self._board.calls_at(each.place) > each.before:
                self._dismiss(pid)
                return

    def dismiss(self) -> None:
        """Let all go: at once, or after the call in hand."""
        for pid in self.workers:
            self._dismiss(pid)

    def _dismiss(self, pid: int) -> None:
        self._dismissed.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, LET_GO)

    def look(self) -> None:
        """See what workers have done, and bury the dead."""
        with suppress(BlockingIOError):
            os.read(self.alarm, 4096)
        if self._board.calls != self.requests:
            self.requests = self._board.calls
            self._last_call = time.monotonic()
        while self._members:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            gone = self._members.pop(pid, None)
            if gone:
                self._bury(pid, gone)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) != LET_GO:
                log(f"worker {pid} was ended by signal {os.WTERMSIG(status)}")

    def _bury(self, pid: int, gone: _Member) -> None:
        is_unused = self._board.is_idle(gone.place) and self._board.calls_at(gone.place) == gone.before
        if is_unused and pid not in self._dismissed:
            # The next one would end as well, and the next, as fast as they can be forked.
            self._rests_until = time.monotonic() + REST_S
        self._dismissed.discard(pid)
        self._board.set_vacant(gone.place)
        self._sockets += [gone.socket] if gone.socket else []

    def _fork(self) -> None:
        opened = self._sockets.pop() if self._sockets else _open_socket()
        place = self._board.vacant()
        member = _Member(place, self._board.calls_at(place), opened)
        server = os.getpid()
        # Before it can be busy.
        self._board.set_idle(member.place)
        try:
            pid = os.fork()
        except OSError:
            self._board.set_vacant(member.place)
            self._sockets += [opened] if opened else []
            raise
        if pid == 0:
            self._be_worker(server, member)
        self._members[pid] = member
        self.made += 1

    def _be_worker(self, server: int, member: _Member) -> NoReturn:
        status = FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, LET_GO, 0, 0, 0)
            self._have_only(member.socket)
            # Else the server has died before it could be heard.
            if os.getppid() == server:
                defaults = {link.ANSWER_VARIABLE: self._settings.answer_del}
                post = Post(self._board, member.place, self._alarm)
                worker = Worker(self._listener, self._door(), self._table, post, defaults)
                worker.serve(self._settings.calls)
            status = 0
        except BaseException as error:  # noqa: BLE001 - it must not go on as if it were the server
            log(f"a worker ends: unexpected {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _have_only(self, opened: Nfnetlink | None) -> None:
        os.close(self.alarm)
        for other in (*self._sockets, *(member.socket for member in self._members.values())):
            if other:
                other.close()
        if opened:
            nfnetlink.keep(opened)


def _open_socket() -> Nfnetlink | None:
    """Open a socket for a new place; None where the kernel has no nfnetlink: then calls say so."""
    try:
        return Nfnetlink()
    except OSError:
        return None

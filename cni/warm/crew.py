"""The workers of a server: forked before they are needed, replaced when they end.

A fork competes with the calls in hand for the cores, so while there are any, one spare worker will do.
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

from cni import link_removal, nfnetlink
from cni.nfnetlink import Nfnetlink
from cni.warm.log import log
from cni.warm.worker import BUSY, LET_GO, SERVED, Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import NoReturn

    from cni.warm.settings import Settings

MOST_WORKERS = 64
PROCESS_NAME = "pycni-worker"
FAILED = 70  # a worker's exit status after a fault of its own: <sysexits.h>, EX_SOFTWARE
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_RECORD = 5  # bytes that a worker writes on a change: its state, its pid


class _Member(NamedTuple):
    """A worker as the server knows it."""

    is_idle: bool
    socket: Nfnetlink | None


class Crew:
    """Workers at a listening socket; `told` is readable when there is something to look at."""

    def __init__(
        self, listener: socket.socket, build: str, table: Mapping[str, str], settings: Settings
    ) -> None:
        self._listener = listener
        self._build = build
        self._table = table
        self._settings = settings
        self.told, self._tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._members: dict[int, _Member] = {}
        self._sockets: list[Nfnetlink] = []
        self._last_call = time.monotonic()
        self._is_failing = False
        self.requests = 0
        self.made = 0

    @property
    def workers(self) -> list[int]:
        """Their process IDs."""
        return sorted(self._members)

    @property
    def busy(self) -> int:
        """How many have a connection."""
        return sum(not member.is_idle for member in self._members.values())

    def idle_for(self) -> float:
        """Give the time in seconds for which nobody has called, 0 while a call is in hand."""
        return 0 if self.busy else time.monotonic() - self._last_call

    def fill(self) -> bool:
        """Fork the workers that are missing; False when that should rest for a while, as it fails."""
        if self._is_failing:
            self._is_failing = False
            return False
        idle = len(self._members) - self.busy
        wanted = 1 if self.busy else self._settings.workers
        for _ in range(min(wanted - idle, MOST_WORKERS - len(self._members))):
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

    def dismiss(self) -> None:
        """Let all go: at once, or after the call in hand."""
        for pid in self.workers:
            self._dismiss(pid)

    def _dismiss(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, LET_GO)

    def look(self) -> None:
        """Hear what workers tell, and bury the dead."""
        with suppress(BlockingIOError):
            data = os.read(self.told, _RECORD * 4096)
            for at in range(0, len(data), _RECORD):
                self._hear(data[at : at + 1], int.from_bytes(data[at + 1 : at + _RECORD], "little"))
        while self._members:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._is_failing |= os.waitstatus_to_exitcode(status) == FAILED
            gone = self._members.pop(pid, None)
            if gone and gone.socket:
                self._sockets.append(gone.socket)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) != LET_GO:
                log(f"worker {pid} was ended by signal {os.WTERMSIG(status)}")

    def _hear(self, state: bytes, pid: int) -> None:
        self._last_call = time.monotonic()
        self.requests += state == SERVED
        if pid in self._members:
            self._members[pid] = self._members[pid]._replace(is_idle=state != BUSY)

    def _fork(self) -> None:
        opened = self._sockets.pop() if self._sockets else _open_socket()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_worker(server, opened)
        self._members[pid] = _Member(is_idle=True, socket=opened)
        self.made += 1

    def _be_worker(self, server: int, opened: Nfnetlink | None) -> NoReturn:
        status = FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, LET_GO, 0, 0, 0)
            self._have_only(opened)
            # Else the server has died before it could be heard.
            if os.getppid() == server:
                defaults = {link_removal.VARIABLE: self._settings.answer_del}
                worker = Worker(self._listener, self._build, self._table, self._report, defaults)
                worker.serve(self._settings.calls)
            status = 0
        except BaseException as error:  # noqa: BLE001 - it must not go on as if it were the server
            log(f"a worker ends: unexpected {type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def _have_only(self, opened: Nfnetlink | None) -> None:
        os.close(self.told)
        for other in (*self._sockets, *(member.socket for member in self._members.values())):
            if other:
                other.close()
        if opened:
            nfnetlink.keep(opened)

    def _report(self, state: bytes) -> None:
        """Tell the server, as a worker, what it is doing; if nobody listens it counts as before."""
        with suppress(OSError):
            os.write(self._tell, state + os.getpid().to_bytes(4, "little"))


def _open_socket() -> Nfnetlink | None:
    """Open a socket for a new place; None where the kernel has no nfnetlink: then calls say so."""
    try:
        return Nfnetlink()
    except OSError:
        return None

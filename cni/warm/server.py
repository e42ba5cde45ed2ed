"""The warm server: imports everything once and keeps workers waiting at the socket.

It does no plugin work and starts no thread. Its listening socket is descriptor 3, from the launcher that
started it or from systemd. It ends after some time without a call, on SIGTERM, or when callers no
longer find its socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.kernel import background
from cni.warm import connection, settings
from cni.warm.log import keep_journal, log
from cni.warm.preload import preload
from cni.warm.report import Report
from cni.warm.worker_pool import REST_S, Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import NoReturn

LISTEN_FD = 3
PROCESS_NAME = "pycni-server"
_BACKLOG = 1024
_PR_SET_NAME = 15
_LOOK_AROUND_S = 15
_LOOK_IN_RUSH_S = 0.005


def main(path: Path, build: str, table_file: Path) -> NoReturn:
    """Be the server of the socket that callers find at `path`, until nobody calls any more.

    `table_file` is JSON, plugin name to package name; the compiled door lies beside it.
    """
    is_lent = os.environ.get("LISTEN_PID") == str(os.getpid())
    if "JOURNAL_STREAM" in os.environ:
        keep_journal()
    # What it was started with is not for callers.
    os.environ.clear()
    try:
        # Before it can be another server's.
        inode = path.lstat().st_ino
        table = json.loads(table_file.read_text())
        library = connection.load(table_file.with_name(connection.FILE))
        preload(table.values())
        if background.count_threads() > 1:
            log("importing the plugins has started a thread: workers are forked without it, and may hang")
        make_door = partial(connection.Door, library, LISTEN_FD, build)
        Server(path, inode, build, make_door, table, is_lent=is_lent).serve()
    except Exception as error:  # noqa: BLE001 - nobody but the log is there to hear it
        log(f"server ends: unexpected {type(error).__name__}: {error}")
        sys.exit(1)
    sys.exit(0)


def _settings() -> settings.Settings:
    try:
        return settings.load()
    except CniError as error:
        log(f"defaults are used: {error}")
        return settings.Settings()


class Server:
    """Keeps workers waiting until it is told to end or nobody has called for a while.

    `inode` is that of the socket's file. `is_lent`: the socket is systemd's, which goes on listening when the
    server ends.
    """

    def __init__(  # noqa: PLR0913 - what makes one
        self,
        path: Path,
        inode: int,
        build: str,
        make_door: Callable[[], connection.Door],
        table: Mapping[str, str],
        *,
        is_lent: bool,
    ) -> None:
        self._path = path
        self._inode = inode
        self._build = build
        self._is_lent = is_lent
        setup = _settings()
        self._idle_s = settings.idle_s(setup)
        self._look_around_s = min(self._idle_s, setup.rest_seconds, _LOOK_AROUND_S)
        self._listener = socket.socket(fileno=LISTEN_FD)
        self._listener.set_inheritable(False)
        # Again, so that callers are shown our credentials and not those of whoever bound it.
        self._listener.listen(_BACKLOG)
        self._crew = Crew(self._listener, make_door, table, setup)
        self._is_ending = False
        self._is_asked = False

    def serve(self) -> None:
        """Work until there is nothing to do any more."""
        ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        report = Report(self._path)
        log(f"server of build {self._build} waits at {self._path}, {self._idle_s} s without a call at most")
        while not self._is_over():
            wait_s = self._look_around_s if self._crew.fill() else REST_S
            if self._crew.is_stretched():
                # Each call of a rush sounds the alarm: to look now and then does.
                ready, _, _ = select.select([woken], [], [], _LOOK_IN_RUSH_S)
            else:
                ready, _, _ = select.select([woken, self._crew.alarm], [], [], wait_s)
            if woken in ready:
                os.read(woken, 4096)
            self._crew.look()
            if not ready:
                self._crew.shrink()
            self._crew.rest()
            if self._is_asked:
                self._is_asked = False
                report.write(self._crew)
        self._crew.dismiss()
        report.remove()
        log("server ends")

    def _on_signal(self, number: int, _frame: object) -> None:
        self._is_asked = self._is_asked or number == signal.SIGUSR1
        self._is_ending = self._is_ending or number in {signal.SIGTERM, signal.SIGINT}

    def _is_over(self) -> bool:
        """Tell whether to end. When that is for want of calls, no launcher finds the socket any more."""
        if self._is_ending or not self._is_found():
            return True
        return self._crew.idle_for() >= self._idle_s and (self._is_lent or self._leave())

    def _leave(self) -> bool:
        """Remove the socket, under the lock that who starts a server takes; False if somebody calls."""
        with suppress(BlockingIOError), open(_lock(self._path), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if select.select([LISTEN_FD, self._crew.alarm], [], [], 0)[0]:
                return False
            if self._is_found():
                self._path.unlink()
            return True
        return False

    def _is_found(self) -> bool:
        """Tell whether the file at the socket's path is still ours."""
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False


def _lock(path: Path) -> int:
    return os.open(f"{path}.lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

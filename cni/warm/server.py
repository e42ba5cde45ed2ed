"""The warm server: imports everything once and keeps idle workers at the socket.

The server runs no plugin and starts no thread. Its listening socket is descriptor 3, from the launcher that
started it or from systemd. It ends after some time without a call, on SIGTERM, or when the socket's file is
removed or replaced.
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
from cni.warm.worker_pool import RESPAWN_DELAY_S, WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import NoReturn

LISTEN_FD = 3
PROCESS_NAME = "pycni-server"
_BACKLOG = 1024
_PR_SET_NAME = 15
_CHECK_S = 15
_CHECK_UNDER_LOAD_S = 0.005


def main(path: Path, build: str, table_file: Path) -> NoReturn:
    """Run the server of the socket that callers find at `path`, until no more calls come.

    `table_file` is JSON, plugin name to package name; the compiled connection.c is in the same folder.
    """
    is_socket_of_systemd = os.environ.get("LISTEN_PID") == str(os.getpid())
    if "JOURNAL_STREAM" in os.environ:
        keep_journal()
    # Plugins must not see the variables that the server was started with.
    os.environ.clear()
    try:
        # Read first: later the file may be another server's.
        inode = path.lstat().st_ino
        table = json.loads(table_file.read_text())
        library = connection.load(table_file.with_name(connection.FILE))
        preload(table.values())
        if background.count_threads() > 1:
            log("importing the plugins started a thread: forked workers do not have it and may hang")
        connect = partial(connection.Connection, library, LISTEN_FD, build)
        Server(path, inode, build, connect, table, is_socket_of_systemd=is_socket_of_systemd).serve()
    except Exception as error:  # noqa: BLE001 - the log is the only place to report it
        log(f"server ends: unexpected {type(error).__name__}: {error}")
        sys.exit(1)
    sys.exit(0)


def _settings() -> settings.Settings:
    try:
        return settings.load()
    except CniError as error:
        log(f"using default settings: {error}")
        return settings.Settings()


class Server:
    """Keeps idle workers until a signal ends it or no call comes for a while.

    `inode` is that of the socket's file. If `is_socket_of_systemd`, systemd listens
    after the server ends.
    """

    def __init__(  # noqa: PLR0913 - independent properties of one server
        self,
        path: Path,
        inode: int,
        build: str,
        connect: Callable[[], connection.Connection],
        table: Mapping[str, str],
        *,
        is_socket_of_systemd: bool,
    ) -> None:
        self._path = path
        self._inode = inode
        self._build = build
        self._is_socket_of_systemd = is_socket_of_systemd
        loaded = _settings()
        self._idle_s = settings.idle_s(loaded)
        self._check_s = min(self._idle_s, loaded.rest_seconds, _CHECK_S)
        self._listener = socket.socket(fileno=LISTEN_FD)
        self._listener.set_inheritable(False)
        # Listen again: SO_PEERCRED shows callers the process that called listen(2), which must be the server.
        self._listener.listen(_BACKLOG)
        self._pool = WorkerPool(self._listener, connect, table, loaded)
        self._is_ending = False
        self._is_report_requested = False

    def serve(self) -> None:
        """Run until the server must end."""
        ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
        wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        report = Report(self._path)
        log(f"server of build {self._build} listens at {self._path}, idle timeout {self._idle_s} s")
        while not self._must_end():
            wait_s = self._check_s if self._pool.fill() else RESPAWN_DELAY_S
            if self._pool.is_saturated():
                # Under load each call writes to the alarm: polling wakes the server less often.
                ready, _, _ = select.select([wakeup], [], [], _CHECK_UNDER_LOAD_S)
            else:
                ready, _, _ = select.select([wakeup, self._pool.alarm], [], [], wait_s)
            if wakeup in ready:
                os.read(wakeup, 4096)
            self._pool.update()
            if not ready:
                self._pool.shrink()
            self._pool.recycle()
            if self._is_report_requested:
                self._is_report_requested = False
                report.write(self._pool)
        self._pool.retire_all()
        report.remove()
        log("server ends")

    def _on_signal(self, number: int, _frame: object) -> None:
        self._is_report_requested = self._is_report_requested or number == signal.SIGUSR1
        self._is_ending = self._is_ending or number in {signal.SIGTERM, signal.SIGINT}

    def _must_end(self) -> bool:
        """Return whether the server must end. Before it ends for lack of calls, it removes its socket."""
        if self._is_ending or not self._owns_socket_file():
            return True
        return self._pool.idle_for() >= self._idle_s and (self._is_socket_of_systemd or self._remove_socket())

    def _remove_socket(self) -> bool:
        """Remove the socket under the lock for starting a server. Return False if a call has come."""
        with suppress(BlockingIOError), open(_lock(self._path), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if select.select([LISTEN_FD, self._pool.alarm], [], [], 0)[0]:
                return False
            if self._owns_socket_file():
                self._path.unlink()
            return True
        return False

    def _owns_socket_file(self) -> bool:
        """Return whether the file at the socket's path is this server's."""
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False


def _lock(path: Path) -> int:
    return os.open(f"{path}.lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

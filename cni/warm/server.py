"""The warm server: imports everything once and keeps workers waiting at the socket.

It does no plugin work and starts no thread. A launcher starts it with the listening socket as
descriptor 3. It ends after some time without a call, on SIGTERM, or when callers no longer find its socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cni
from cni import store
from cni.errors import CniError
from cni.warm import settings
from cni.warm.control import status_file
from cni.warm.log import log
from cni.warm.worker import BUSY, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

LISTEN_FD = 3
MAX_WORKERS = 64
_BACKLOG = 1024
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_RECORD = 5  # bytes a worker writes on a change: its state, its pid
_NOT_PRELOADED = ("cni.cli", "cni.testing", "cni.runtime")
_LOOK_AROUND_S = 30


def main(path: Path, build: str, table: Mapping[str, str]) -> NoReturn:
    """Be the server at the socket's path, until nobody calls any more."""
    try:
        preload(table)
        server = Server(path, build, table, _settings())
        log(f"server of build {build} waits at {path}")
        server.serve()
    except Exception as error:  # noqa: BLE001 - nobody but the log is there to hear it
        log(f"server ends: unexpected {type(error).__name__}: {error}")
        sys.exit(1)
    log("server ends")
    sys.exit(0)


def _settings() -> settings.Settings:
    try:
        return settings.load()
    except CniError as error:
        log(f"defaults are used: {error}")
        return settings.Settings()


def preload(table: Mapping[str, str]) -> None:
    """Import the library, all plugins and what they load late; freeze the collector's heap."""
    for module in pkgutil.walk_packages(cni.__path__, "cni."):
        if not module.name.startswith(_NOT_PRELOADED):
            importlib.import_module(module.name)
    for package in set(table.values()):
        importlib.import_module(package)
    gc.collect()
    gc.freeze()


class Server:
    """Keeps workers waiting, more while calls come, until nobody has called for a while."""

    def __init__(self, path: Path, build: str, table: Mapping[str, str], setup: settings.Settings) -> None:
        self._path = path
        self._inode = path.stat().st_ino
        self._build = build
        self._table = table
        self._setup = setup
        self._listener = socket.socket(fileno=LISTEN_FD)
        # Again, so that callers are shown our credentials and not those of the launcher that bound it.
        self._listener.listen(_BACKLOG)
        self._told, self._tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._is_idle: dict[int, bool] = {}
        self._started = self._last_call = time.monotonic()
        self._requests = 0
        self._is_ending = False
        self._is_asked = False

    def serve(self) -> None:
        """Work until there is nothing to do any more."""
        _name("pycni-server")
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while not self._is_over():
            self._fill()
            ready, _, _ = select.select(
                [self._told, woken], [], [], min(self._setup.idle_seconds, _LOOK_AROUND_S)
            )
            if woken in ready:
                os.read(woken, 4096)
            if self._told in ready:
                self._hear()
            self._reap()
            if self._is_asked:
                self._tell_status()
        for pid in self._is_idle:
            os.kill(pid, signal.SIGUSR1)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._is_asked = self._is_asked or number == signal.SIGUSR1
        self._is_ending = self._is_ending or number in {signal.SIGTERM, signal.SIGINT}

    def _fill(self) -> None:
        waiting = sum(self._is_idle.values())
        # A fork competes with the calls in hand for the cores: while there are any, one spare worker will do.
        wanted = self._setup.workers if waiting == len(self._is_idle) else 1
        for _ in range(min(wanted - waiting, MAX_WORKERS - len(self._is_idle))):
            self._fork()

    def _fork(self) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid:
            self._is_idle[pid] = True
        else:
            self._be_worker(server)

    def _be_worker(self, server: int) -> NoReturn:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _name("pycni-worker")
        worker = Worker(self._listener, self._build, self._table, self._report, self._setup.calls)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
        if os.getppid() == server:
            worker.serve()
        os._exit(0)

    def _report(self, state: bytes) -> None:
        """Tell the server, as a worker, what it is doing; if nobody listens it counts as before."""
        try:
            os.write(self._tell, state + os.getpid().to_bytes(4, "little"))
        except OSError:
            return

    def _hear(self) -> None:
        data = os.read(self._told, _RECORD * 800)
        for at in range(0, len(data), _RECORD):
            pid = int.from_bytes(data[at + 1 : at + _RECORD], "little")
            is_busy = data[at : at + 1] == BUSY
            self._requests += is_busy
            if pid in self._is_idle:
                self._is_idle[pid] = not is_busy
        self._last_call = time.monotonic()

    def _tell_status(self) -> None:
        self._is_asked = False
        told = {
            "uptime_s": round(time.monotonic() - self._started),
            "requests": self._requests,
            "workers": sorted(self._is_idle),
            "busy": sum(not idle for idle in self._is_idle.values()),
        }
        store.write_atomic(status_file(self._path), json.dumps(told).encode())

    def _reap(self) -> None:
        while self._is_idle:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._is_idle.pop(pid, None)

    def _is_over(self) -> bool:
        """Tell whether to end. When that is for want of calls, no launcher finds the socket any more."""
        if self._is_ending or not self._is_found():
            return True
        if time.monotonic() - self._last_call < self._setup.idle_seconds or not all(self._is_idle.values()):
            return False
        with Path(f"{self._path}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._has_callers():
                return False
            if self._is_found():
                self._path.unlink()
        return True

    def _has_callers(self) -> bool:
        waiting = [self._listener.fileno(), self._told]
        return bool(select.select(waiting, [], [], 0)[0])

    def _is_found(self) -> bool:
        """Tell whether the file at the socket's path is still ours."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False


def _name(text: str) -> None:
    """Name the process for `ps` and for those who look after it."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, text.encode(), 0, 0, 0)

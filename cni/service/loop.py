"""The loop of a helper: one thread that works when something is due, and answers requests in between."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import syslog
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.service import peer
from cni.service.client import LISTEN_FD
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    # Answers requests; returns whether to go on.
    Answer = Callable[[], bool]
    # Does what is due, and calls Answer in between. Returns the seconds until more is due; None for no work.
    Tick = Callable[[Answer], float | None]

_PR_SET_NAME = 15
_REQUEST_WITHIN_S = 1.0
_LARGEST = 1 << 12
# Also without a request it looks at the records, and whether the socket's file is its own.
_LONGEST_PAUSE_S = 60.0
_AFTER_ERROR_S = 5.0


def run(module: str, path: str, build: str, linger_s: float) -> None:
    """Run the helper whose function `tick` is in `module`, until it has no work for `linger_s` seconds."""
    syslog.openlog("pycni-helper", syslog.LOG_PID, syslog.LOG_DAEMON)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"pycni-helper", 0, 0, 0)
    listener = socket.socket(fileno=LISTEN_FD)
    listener.set_inheritable(False)
    # Listen again: SO_PEERCRED shows callers the process that called listen(2).
    listener.listen()
    listener.settimeout(0)
    _Loop(listener, path, build, linger_s).serve(_load(module).tick)


def _load(module: str) -> ModuleType:
    """Import a module without running its package's `__init__`: the plugin's model takes 15 MiB."""
    name = module.partition(".")[0]
    if spec := importlib.util.find_spec(name):
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(module)


def log(text: str) -> None:
    """Write a line to the system's log."""
    syslog.syslog(syslog.LOG_NOTICE, text)


class _Loop:
    def __init__(self, listener: socket.socket, path: str, build: str, linger_s: float) -> None:
        self._listener = listener
        self._path = path
        self._build = build
        self._linger_s = linger_s
        self._inode = os.lstat(path).st_ino
        self._is_ending = False
        self._busy_s = time.monotonic()
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        self._wakeup, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def serve(self, tick: Tick) -> None:
        """Work and answer until there is nothing to do."""
        log(f"helper starts at {self._path}")
        while not self._must_end():
            if not self._answer():
                break
            wait_s = self._work(tick)
            if wait_s is not None:
                self._busy_s = time.monotonic()
            elif (wait_s := self._busy_s + self._linger_s - time.monotonic()) <= 0 and self._remove_socket():
                break
            select.select(
                [self._listener.fileno(), self._wakeup], [], [], max(0, min(wait_s, _LONGEST_PAUSE_S))
            )
        log("helper ends")

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._is_ending = True

    def _work(self, tick: Tick) -> float | None:
        try:
            return tick(self._answer)
        except (CniError, OSError) as error:
            log(f"trying again in {_AFTER_ERROR_S:g} s: {error}")
            return _AFTER_ERROR_S

    def _must_end(self) -> bool:
        return self._is_ending or not self._owns_socket()

    def _owns_socket(self) -> bool:
        try:
            return os.lstat(self._path).st_ino == self._inode
        except OSError:
            return False

    def _answer(self) -> bool:
        """Answer all requests; return whether the helper goes on.

        After a request of another build the socket is gone, so that the caller starts that build's helper.
        """
        for connection in self._connections():
            with connection, suppress(OSError, ValueError, AttributeError):
                if not peer.is_equal(connection):
                    log("refused a request of another user, or of a process in other namespaces")
                    continue
                connection.settimeout(_REQUEST_WITHIN_S)
                # A caller that only looks whether a helper runs sends nothing.
                if not (request := connection.recv(_LARGEST)):
                    continue
                if json.loads(request).get("build") != self._build and self._owns_socket():
                    log("helper ends: it is of another build than its caller")
                    Path(self._path).unlink()
                    self._is_ending = True
                connection.send(json.dumps({"build": self._build}).encode())
        return not self._must_end()

    def _connections(self) -> Iterator[socket.socket]:
        while not self._is_ending:
            try:
                yield self._listener.accept()[0]
            except OSError:
                return

    def _remove_socket(self) -> bool:
        """Remove the socket under the lock for starting; return False if a request has come."""
        with suppress(CniError), locked(f"{self._path}.lock", 0):
            if select.select([self._listener], [], [], 0)[0]:
                return False
            if self._owns_socket():
                Path(self._path).unlink()
            return True
        return False

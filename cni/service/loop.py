"""The loop of a helper: one thread that works when something is due, and answers requests in between.

The module of a helper has

    HELPER = Helper(...)                            see `cni.service.client`
    tick(answer) -> Due                             does what is due, and calls `answer` in between
    receive(name, socket) -> seconds | None         reads a socket of `cni.service.sockets`, if it keeps any;
                                                    returns when `tick` is due, if that is earlier
    finish()                                        ends what a helper of another build cannot take over, if
                                                    there may be such

`tick` is called after each request, and when the time is up that it has returned.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import syslog
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError
from cni.service import detach, message, peer, sockets, status
from cni.service.guard import LISTEN_FD
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType

    # Answers requests; returns whether to go on.
    Answer = Callable[[], bool]
    # Does what is due, and calls Answer in between.
    Tick = Callable[[Answer], "Due"]

_REQUEST_WITHIN_S = 1.0
# Also without a request it looks at the records, and whether the socket's file is its own.
_LONGEST_PAUSE_S = 60.0
_AFTER_ERROR_S = 5.0
# A caller that has the sockets starts the helper of its build so soon, or never.
_TAKEN_WITHIN_S = 3.0
_SIGNALS = 1 << 10


class Due(NamedTuple):
    """The seconds until more work is due, None without work; and what the helper works for, for people."""

    wait_s: float | None
    held: Sequence[str] = ()


class Handles(NamedTuple):
    """The handles from the guard; `restarts` counts the earlier helpers that have ended by an error."""

    guard: socket.socket
    status: int
    restarts: int
    sockets: Mapping[str, int]


class Settings(NamedTuple):
    """Settings of a helper; `is_unit` says that systemd runs it and holds its request socket."""

    build: str
    linger_s: float
    memory_mib: int
    is_unit: bool


def run(path: str, handles: Handles, module: str, *settings: object) -> int:
    """Run the helper of a module until it has no work for a time. Return its exit code, 1 after an error."""
    syslog.openlog("pycni-helper", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        loop = _Loop(path, handles, Settings(*settings))  # type: ignore[arg-type]
        loop.serve(load(module))
    except Exception as error:  # noqa: BLE001 - logged; the guard starts the helper again
        log(f"helper ends by an error: {type(error).__name__}: {error}")
        return 1
    return 0


def load(module: str) -> ModuleType:
    """Import a module without running its package's `__init__`: the plugin's model takes 15 MiB."""
    name = module.partition(".")[0]
    if name not in sys.modules and (spec := importlib.util.find_spec(name)):
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(module)


def log(text: str) -> None:
    """Write a line to the system's log."""
    syslog.syslog(syslog.LOG_NOTICE, text)


class _Loop:
    def __init__(self, path: str, handles: Handles, settings: Settings) -> None:
        self._path = path
        self._status_path = path.removesuffix(".sock") + status.SUFFIX
        self._handles = handles
        self._settings = settings
        limit = settings.memory_mib << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        self._listener = socket.socket(fileno=LISTEN_FD)
        self._listener.set_inheritable(False)
        # Listen again: SO_PEERCRED shows callers the process that called listen(2).
        self._listener.listen()
        self._listener.settimeout(0)
        self._inode = os.lstat(path).st_ino
        self._is_ending = self._is_asked = self._has_work = False
        # Until then it accepts no requests: they are for the helper that takes over. 0 if none does.
        self._taken_until_s = 0.0
        # Callers that wait until the work is done.
        self._waiting: list[socket.socket] = []
        self._held: Sequence[str] | None = None
        self._started_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._busy_s = self._due_s = time.monotonic()
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        self._wakeup, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        sockets.adopt(handles.sockets, handles.guard)
        for fd in (LISTEN_FD, self._wakeup, handles.guard.fileno()):
            sockets.watch(fd)

    def serve(self, module: ModuleType) -> None:
        """Work and answer until there is nothing to do."""
        log(f"helper starts at {self._path}")
        self._report(())
        self._answer()
        is_busy = False
        # Looking for the socket's file costs as much as answering a packet.
        while not self._is_ending and (is_busy or self._owns_socket()):
            self._accept_again()
            if self._is_asked or time.monotonic() >= self._due_s:
                self._work(module.tick)
            if self._has_no_work() and self._remove_socket():
                break
            ready, names = sockets.wait(0 if self._is_asked else self._next_s() - time.monotonic())
            is_busy = bool(names) and not ready and time.monotonic() < self._due_s
            for name in names:
                if bound := sockets.find(name):
                    self._hasten(module.receive(name, bound))
            if self._handles.guard.fileno() in ready:
                self._replace_guard()
            if self._wakeup in ready:
                # A signal of the module's own must not wake the loop for ever.
                os.read(self._wakeup, _SIGNALS)
            if ready:
                self._answer()
        self._end(module)

    def _end(self, module: ModuleType) -> None:
        if not status.is_current(self._status_path, self._handles.status):
            # Another guard has taken over, and the request socket is its own.
            getattr(module, "finish", lambda: None)()
        elif self._is_ending:
            self._remove_socket()
        log("helper ends")

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._is_ending = True

    def _work(self, tick: Tick) -> None:
        """Do what is due, and answer those that have waited for it."""
        self._is_asked = False
        waiting, self._waiting = self._waiting, []
        reason = ""
        try:
            due = tick(self._answer)
        except (CniError, OSError) as error:
            log(f"trying again in {_AFTER_ERROR_S:g} s: {error}")
            due, reason = Due(_AFTER_ERROR_S, self._held or ()), str(error)
        now_s = time.monotonic()
        pause_s = self._settings.linger_s if due.wait_s is None else due.wait_s
        self._due_s = now_s + max(0.0, min(pause_s, _LONGEST_PAUSE_S))
        self._has_work = due.wait_s is not None
        if self._has_work:
            self._busy_s = now_s
        self._report(due.held)
        for each in waiting:
            with each, suppress(OSError):
                self._reply(each, error=reason)

    def _hasten(self, wait_s: float | None) -> None:
        if wait_s is not None:
            self._due_s = min(self._due_s, time.monotonic() + wait_s)

    def _next_s(self) -> float:
        return min(self._due_s, self._taken_until_s or self._due_s)

    def _has_no_work(self) -> bool:
        # A helper with work may be due later than it would linger without any.
        is_idle = not self._has_work and not self._is_asked and not self._taken_until_s
        return is_idle and time.monotonic() >= self._busy_s + self._settings.linger_s

    def _report(self, held: Sequence[str]) -> None:
        if held == self._held:
            return
        self._held = held
        report = {
            "build": self._settings.build,
            "helper": os.getpid(),
            "started_s": self._started_s,
            "restarts": self._handles.restarts,
            "unit": self._settings.is_unit,
            "holds": list(held),
        }
        status.write(self._handles.status, json.dumps(report).encode())

    def _must_end(self) -> bool:
        return self._is_ending or not self._owns_socket()

    def _owns_socket(self) -> bool:
        try:
            return os.lstat(self._path).st_ino == self._inode
        except OSError:
            return False

    def _answer(self) -> bool:
        """Answer all requests; return whether the helper goes on."""
        for connection in self._connections():
            with suppress(OSError, ValueError, CniError):
                self._answer_one(connection)
            if connection not in self._waiting:
                connection.close()
        return not self._must_end()

    def _answer_one(self, connection: socket.socket) -> None:
        if not peer.is_equal(connection):
            log("refused a request of another user, or of a process in other namespaces")
            return
        connection.settimeout(_REQUEST_WITHIN_S)
        # A caller that only looks whether a helper runs sends nothing, which is no message.
        request, passed = message.receive(connection)
        for name, fd in passed.items():
            sockets.keep(name, socket.socket(fileno=fd))
        if request.get("take") and request.get("build") != self._settings.build:
            self._hand_over(connection)
        elif request.get("wait"):
            self._waiting.append(connection)
            self._is_asked = True
        else:
            self._is_asked = True
            self._reply(connection)

    def _reply(
        self, connection: socket.socket, fds: Mapping[str, int] | None = None, error: str = ""
    ) -> None:
        content = {"build": self._settings.build, "unit": self._settings.is_unit, "error": error}
        message.send(connection, content, fds or {})

    def _hand_over(self, connection: socket.socket) -> None:
        """Send copies of the sockets to a caller of another build, which starts that build's helper.

        This one works on until the other's guard ends it, also if the caller is killed before it has started
        that. Systemd holds the request socket of a unit, and starts the installed build when this one has
        ended. The caller passes the other sockets on to it.
        """
        is_unit = self._settings.is_unit
        named = {name: each.fileno() for name, each in sockets.kept().items()}
        self._reply(connection, named if is_unit else {"": LISTEN_FD, **named})
        log("a caller of another build takes over")
        if is_unit:
            self._is_ending = True
        else:
            self._taken_until_s = time.monotonic() + _TAKEN_WITHIN_S
            sockets.unwatch(LISTEN_FD)

    def _accept_again(self) -> None:
        """Accept requests again if a caller has taken the sockets and has not started a helper."""
        if self._taken_until_s and time.monotonic() >= self._taken_until_s:
            self._taken_until_s = 0.0
            sockets.watch(LISTEN_FD)

    def _replace_guard(self) -> None:
        """Execute the guard's program, with all sockets: the guard was killed."""
        log("the guard was killed: the helper starts again")
        named = sockets.kept()
        fds = [LISTEN_FD, *(each.fileno() for each in named.values())]
        detach.execute(detach.own_command(list(named)), fds)

    def _connections(self) -> Iterator[socket.socket]:
        while not self._is_ending and not self._taken_until_s:
            try:
                yield self._listener.accept()[0]
            except OSError:
                return

    def _remove_socket(self) -> bool:
        """Remove the socket under the lock for starting; return False if a request has come.

        That of a unit stays: a request starts the unit again.
        """
        if self._settings.is_unit:
            return True
        with suppress(CniError), locked(f"{self._path}.lock", 0):
            if not self._is_ending and select.select([self._listener], [], [], 0)[0]:
                return False
            if self._owns_socket():
                Path(self._path).unlink()
            return True
        return False

"""A process that is the plugin for one launcher after another.

During a call it has the caller's environment, working directory, umask and descriptors 0, 1, 2. It
ends as a plugin would when its launcher dies (SIGKILL to itself), and undoes its work when the launcher
passes on a request to stop. It takes another call only after it has proved to be as it was at its start.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import socket
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni import multicall, skel
from cni.warm import protocol
from cni.warm.log import log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from cni.plugin import Plugin

BUSY, IDLE = b"b", b"i"
_PEER_CREDENTIALS = struct.Struct("3i")
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)


class Worker:
    """Serves calls from a listening socket until `calls` are done, a call leaves traces or fails, or the
    server has gone. `tell` is given BUSY and IDLE.
    """  # noqa: D205 - one sentence

    def __init__(
        self,
        listener: socket.socket,
        build: str,
        table: Mapping[str, str],
        tell: Callable[[bytes], None],
        calls: int,
    ) -> None:
        self._listener = listener
        self._build = build
        self._table = table
        self._tell = tell
        self._calls = calls
        self._connection: socket.socket | None = None
        self._is_stopping = False
        self._is_orphan = False
        signal.signal(signal.SIGIO, self._on_launcher)
        signal.signal(signal.SIGUSR1, self._on_orphaned)
        self._start = _traces()

    def serve(self) -> None:
        """Work; returns when this process should end."""
        for _ in range(self._calls):
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                return
            with connection:
                self._tell(BUSY)
                is_clean = self._serve_one(connection)
            if not is_clean or self._is_orphan or _traces() != self._start:
                return
            self._tell(IDLE)

    def _serve_one(self, connection: socket.socket) -> bool:
        """Run the call of one connection; tells whether it ended well."""
        if not _is_allowed(connection):
            return True
        try:
            call = protocol.receive(connection)
        except (protocol.ProtocolError, OSError) as error:
            log(f"refused a call: {error}")
            return True
        if call is None:
            return True
        if call.build != self._build or not protocol.accept(connection):
            call.close()
            return True
        status = self._be_plugin(call, connection)
        protocol.answer(connection, status)
        return status == 0

    def _be_plugin(self, call: protocol.Call, connection: socket.socket) -> int:
        _become(call)

        def load() -> Plugin[Any]:
            # Only from here on an interruption is answered with an error object.
            self._watch(connection)
            return multicall.load(call.name, self._table)

        with open(0, "rb", closefd=False) as stdin, open(1, "wb", closefd=False) as stdout:
            delegates = partial(multicall.run_delegate, Path(call.executable), self._table)
            status = skel.run(load, call.env, stdin, stdout, delegates)
        self._unwatch(connection)
        _be_nobody()
        return status

    def _watch(self, connection: socket.socket) -> None:
        """From now on a launcher that dies or wants to stop interrupts us, as a signal to us does."""
        self._is_stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, skel.stop)
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(connection, fcntl.F_GETFL)
        fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
        self._connection = connection
        # It may have gone before that.
        self._on_launcher(signal.SIGIO, None)

    def _unwatch(self, connection: socket.socket) -> None:
        self._connection = None
        flags = fcntl.fcntl(connection, fcntl.F_GETFL)
        fcntl.fcntl(connection, fcntl.F_SETFL, flags & ~os.O_ASYNC)

    def _on_launcher(self, _number: int, _frame: FrameType | None) -> None:
        if self._connection is None or self._is_stopping:
            return
        poller = select.poll()
        poller.register(self._connection, select.POLLRDHUP)
        events = dict(poller.poll(0)).get(self._connection.fileno(), 0)
        if events & (select.POLLHUP | select.POLLERR):
            os.kill(os.getpid(), signal.SIGKILL)
        if events & select.POLLRDHUP:
            self._is_stopping = True
            skel.stop(signal.SIGTERM, None)

    def _on_orphaned(self, _number: int, _frame: FrameType | None) -> None:
        """End now, or after the call in hand, as the server is dead."""
        self._is_orphan = True
        if self._connection is None:
            os._exit(0)


def _is_allowed(connection: socket.socket) -> bool:
    """Only the user that the server runs as may have work done."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    return bool(uid == os.geteuid())


def _become(call: protocol.Call) -> None:
    stdin, stdout, stderr, folder = call.fds
    for target, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, target)
    os.fchdir(folder)
    call.close()
    os.umask(call.umask)
    os.environ.clear()
    os.environ.update(call.env)


def _be_nobody() -> None:
    """Let go of all that was the caller's; its pipes reach their end when this returns."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for target in range(3):
        os.dup2(null, target)
    os.close(null)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _traces() -> tuple[object, ...]:
    """Give all that a call could leave behind in this process."""
    return (
        sorted(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names only, and often
        [Path(f"/proc/thread-self/ns/{kind}").stat().st_ino for kind in ("net", "mnt")],
        os.listdir("/proc/self/task"),  # noqa: PTH208
        _has_children(),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        [resource.getrlimit(limit) for limit in _LIMITS],
    )


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True

"""A process that is the plugin for one launcher after another.

During a call it has the caller's environment, working directory, umask and descriptors 0, 1, 2. It
ends as a plugin would when its launcher dies (SIGKILL to itself), and undoes its work when the launcher
passes on a request to stop. It takes another call only after it has proved to be as it was at its start.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cni import late, multicall, skel
from cni.warm import protocol, traces
from cni.warm.log import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import BinaryIO

    from cni.plugin import Plugin

# What a worker tells the server: it has a connection; that was a call; it waits for the next.
BUSY, CALLED, IDLE = b"b", b"c", b"i"
# Handled during a call. A worker that waits dies of any of them; the server's end sends it SIGUSR1.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGIO, signal.SIGUSR1)
_CALL_WITHIN_S = 5
_LATE_WITHIN_S = 60


class Worker:
    """Serves calls from a listening socket; `tell` is given BUSY, CALLED and IDLE.

    Plugins see the variables of `defaults` where the caller has not set them.
    """

    def __init__(
        self,
        listener: socket.socket,
        build: str,
        table: Mapping[str, str],
        tell: Callable[[bytes], None],
        defaults: Mapping[str, str],
    ) -> None:
        self._listener = listener
        self._build = build
        self._table = table
        self._tell = tell
        self._defaults = defaults
        self._connection: socket.socket | None = None
        self._is_stopping = False
        self._is_orphan = False
        # So the first idle worker gets the call, whose memory and caches are warm, and not, as with
        # those that wait in accept(2), the one that has been idle for longest: 0.3 ms of each call.
        listener.settimeout(0)
        self._calls = select.epoll()
        self._calls.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        _be_nobody(self._null)

    def serve(self, calls: int) -> None:
        """Work; returns when this process should end: all calls are done, one has failed or left
        traces, or the server has gone.
        """  # noqa: D205 - one sentence
        start = traces.take()
        for _ in range(calls):
            connection = self._accept()
            with connection:
                self._tell(BUSY)
                status = self._serve_one(connection)
            late.wait(_LATE_WITHIN_S)
            left = traces.differences(start, traces.take())
            if left:
                log(f"a worker ends as a call has left: {', '.join(left)}")
            if status or left or self._is_orphan:
                return
            self._tell(IDLE)

    def _accept(self) -> socket.socket:
        while True:
            self._calls.poll()
            # Another one may have been faster.
            with suppress(BlockingIOError):
                return self._listener.accept()[0]

    def _serve_one(self, connection: socket.socket) -> int:
        """Run the call of one connection; gives its exit status, 0 for what was no call."""
        call = self._receive(connection)
        if call is None:
            return 0
        try:
            fds = protocol.begin(connection)
        except (protocol.ProtocolError, OSError) as error:
            log(f"a launcher gave up a call: {error}")
            return 0
        self._tell(CALLED)
        _become(call, fds)
        try:
            status = self._run(call, connection)
        finally:
            self._unwatch(connection)
            _be_nobody(self._null)
        protocol.answer(connection, status)
        return status

    def _receive(self, connection: socket.socket) -> protocol.Call | None:
        """Read a call that we may run; what is none is logged."""
        pid, uid = protocol.peer(connection)
        if uid != os.geteuid() or not _is_in_our_user_namespace(pid):
            log(f"refused a call of user {uid}, process {pid}")
            return None
        connection.settimeout(_CALL_WITHIN_S)
        try:
            call = protocol.receive(connection)
        except (protocol.ProtocolError, OSError) as error:
            log(f"refused a call: {error}")
            return None
        if call is not None and call.build != self._build:
            log(f"refused a call for build {call.build}")
            return None
        return call

    def _run(self, call: protocol.Call, connection: socket.socket) -> int:
        def load() -> Plugin[Any]:
            # Only from here on an interruption is answered with an error object.
            self._watch(connection)
            return multicall.load(call.name, self._table)

        delegates = partial(multicall.run_delegate, Path(call.executable), self._table)
        try:
            with _standard_streams() as (stdin, stdout):
                return skel.run(load, {**self._defaults, **call.env}, stdin, stdout, delegates)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except OSError as error:
            log(f"the last output of {call.name} could not be written: {error}")
            return 1

    def _watch(self, connection: socket.socket) -> None:
        """From now on a launcher that dies or wants to stop interrupts us, as a signal to us does."""
        self._is_stopping = False
        self._connection = connection
        for number, handler in zip(
            _SIGNALS, (skel.stop, skel.stop, self._on_launcher, self._on_orphaned), strict=True
        ):
            signal.signal(number, handler)
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
        # It may have gone before that.
        self._on_launcher(signal.SIGIO, None)

    def _unwatch(self, connection: socket.socket) -> None:
        fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) & ~os.O_ASYNC)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._connection = None

    def _on_launcher(self, _number: int, _frame: FrameType | None) -> None:
        if self._connection is None:
            return
        poller = select.poll()
        poller.register(self._connection, select.POLLRDHUP)
        events = dict(poller.poll(0)).get(self._connection.fileno(), 0)
        if events & (select.POLLHUP | select.POLLERR):
            os.kill(os.getpid(), signal.SIGKILL)
        if events & select.POLLRDHUP and not self._is_stopping:
            self._is_stopping = True
            skel.stop(signal.SIGTERM, None)

    def _on_orphaned(self, _number: int, _frame: FrameType | None) -> None:
        self._is_orphan = True
        # As long as anybody has it, callers find a socket; nobody would accept them.
        self._listener.close()


def _is_in_our_user_namespace(pid: int) -> bool:
    """Tell whether a process, whose user ID may be ours by chance, may do what that user may do here."""
    try:
        return Path(f"/proc/{pid}/ns/user").samefile("/proc/self/ns/user")
    except OSError:
        return False


@contextmanager
def _standard_streams() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Have standard streams with empty buffers, as a new process has; gives stdin and stdout as bytes."""
    with (
        open(0, encoding="utf-8", closefd=False) as sys.stdin,
        open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
        open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False) as sys.stderr,
    ):
        yield cast("BinaryIO", sys.stdin.buffer), cast("BinaryIO", sys.stdout.buffer)


def _become(call: protocol.Call, fds: list[int]) -> None:
    *streams, folder = fds
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
    os.fchdir(folder)
    for fd in fds:
        os.close(fd)
    os.umask(call.umask)
    os.environ.update(call.env)


def _be_nobody(null: int) -> None:
    """Let go of all that was the caller's; its pipes reach their end when this returns."""
    for target in range(3):
        os.dup2(null, target)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()

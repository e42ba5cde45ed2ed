"""The one door to child processes: fixed argument lists, no shell, a time limit, stderr kept.

By posix_spawn(3) and poll(2): subprocess takes 1.3 ms more for a child, as much as iptables itself does.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.faults import point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# A runtime may pass no PATH at all, or one without the folders for administration.
_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK_BYTES = 1 << 16
_FIRST_FREE = 3  # the first descriptor that is not a standard one
# What one that is asked to end may take to undo what it has begun.
_GRACE_S = 2.0


class Completed(NamedTuple):
    """A finished process; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: str


def find(name: str) -> str | None:
    """Give the path of a program from PATH or, failing that, from the usual system folders."""
    import shutil

    return shutil.which(name) or shutil.which(name, path=_FALLBACK_PATH)


# What gives the descriptors that children get besides their standard ones.
_lenders: list[Callable[[], int]] = []


@contextmanager
def lending(lender: Callable[[], int]) -> Iterator[None]:
    """Let children that are started meanwhile have the descriptor that `lender` gives, until they end."""
    _lenders.append(lender)
    try:
        yield
    finally:
        _lenders.remove(lender)


def run(  # noqa: PLR0913 - all but two have their usual values
    argv: Sequence[str],
    stdin: bytes = b"",
    *,
    timeout_s: float = 60,
    env: Mapping[str, str] | None = None,
    pass_stderr: bool = False,
    grace_s: float = _GRACE_S,
) -> Completed:
    """Run a program, argv[0] being its path, to its end; `env` None means ours.

    `pass_stderr` lets it write to our stderr. Raises CniError 5 when it cannot be started, 11 when it takes
    longer than `timeout_s` seconds. It is asked to end then, or when any other exception cuts this short,
    and killed `grace_s` seconds later: a plugin undoes its work meanwhile. Programs that load rules need no
    time: they ask the kernel for all of them at once, and end as soon as they are asked to.
    """
    with ExitStack() as stack:
        try:
            child = _Child(
                stack, argv, os.environ if env is None else env, pass_stderr=pass_stderr, grace_s=grace_s
            )
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"could not run {argv[0]}: {error.strerror}") from error
        is_over = child.serve(stdin, time.monotonic() + timeout_s)
    point("process.ended")
    if not is_over:
        raise CniError(
            Code.TRY_AGAIN,
            f"{argv[0]} did not end within {timeout_s:g} s and was killed",
            "something may hold a lock that it waits for",
        )
    return Completed(child.status, child.stdout, child.stderr.decode(errors="replace").strip())


class _Child:
    """A running program; whatever ends the `stack` ends it if it still runs, and waits for it."""

    def __init__(
        self,
        stack: ExitStack,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        pass_stderr: bool,
        grace_s: float,
    ) -> None:
        self.status = 0
        self._grace_s = grace_s
        # Its process ID, as long as nobody has waited for it.
        self._pid: list[int] = []
        theirs = ExitStack()
        with theirs:
            stdin, self._in = _pipe(theirs, stack)
            self._out, stdout = _pipe(stack, theirs)
            self._err, stderr = _pipe(stack, theirs)
            ends = {0: stdin, 1: stdout} if pass_stderr else {0: stdin, 1: stdout, 2: stderr}
            spawn = partial(
                os.posix_spawn,
                argv[0],
                tuple(argv),
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, end.fileno(), number) for number, end in ends.items()),
                    # Onto itself: it stays open, whatever its flag says.
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in [lender() for lender in _lenders]),
                ],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
            stack.callback(self._end)
            # In one go of the interpreter: a handler that raises finds no child, or one that is known.
            self._pid.extend(map(spawn, [env]))
        self._pidfd = os.pidfd_open(self._pid[0])
        stack.callback(os.close, self._pidfd)
        self._told: dict[FileIO, bytes] = {self._out: b"", self._err: b""}

    @property
    def stdout(self) -> bytes:
        return self._told[self._out]

    @property
    def stderr(self) -> bytes:
        return self._told[self._err]

    def serve(self, stdin: bytes, deadline: float) -> bool:
        """Write and read until the program has ended; False when the time is up."""
        rest = memoryview(stdin)
        poller = select.poll()
        ends = {each.fileno(): each for each in (self._out, self._err, self._in)}
        for fd, end in ends.items():
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLOUT if end is self._in else select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        while True:
            ready = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                return False
            for fd in ready.keys() & ends.keys():
                rest, is_open = self._exchange(ends[fd], rest)
                if not is_open:
                    poller.unregister(fd)
                    end = ends.pop(fd)
                    end.close()
                    if end is self._in:
                        point("process.started")
            if self._pidfd in ready:
                self._read_left()
                self._reap()
                return True

    def _exchange(self, end: FileIO, rest: memoryview) -> tuple[memoryview, bool]:
        """Read from an end, or write to stdin what is left of it; tells whether it is needed any longer."""
        if end is self._in:
            try:
                rest = rest[end.write(rest) or 0 :]
            except BrokenPipeError:
                # It does not want to know more.
                return rest, False
            return rest, bool(rest)
        chunk = end.read(_CHUNK_BYTES)
        self._told[end] += chunk or b""
        return rest, chunk != b""

    def _read_left(self) -> None:
        for end in self._told:
            while not end.closed and (chunk := end.read(_CHUNK_BYTES)):
                self._told[end] += chunk

    def _end(self) -> None:
        """Ask it to end, kill it if it does not, and wait for it."""
        if self._pid:
            try:
                self._ask_to_end(self._pid[0])
            finally:
                self._reap()

    def _reap(self) -> None:
        for pid in self._pid:
            # A handler may have raised between here and the last line before.
            with suppress(ProcessLookupError, ChildProcessError):
                # Of one that has ended by itself there is nothing left to kill.
                os.kill(pid, signal.SIGKILL)
                self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._pid = []

    def _ask_to_end(self, pid: int) -> None:
        """Give it time to undo its work; returns when it has ended or the time is up."""
        pidfd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            # One that is stopped would not hear it.
            for number in (signal.SIGTERM, signal.SIGCONT):
                os.kill(pid, number)
            poller.poll(self._grace_s * 1000)
        finally:
            os.close(pidfd)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[FileIO, FileIO]:
    """Give a pipe's ends, closed with their stacks; none is a standard descriptor, which may be free."""
    fds = [_above_standard(fd) for fd in os.pipe()]
    return reader.enter_context(FileIO(fds[0], "rb")), writer.enter_context(FileIO(fds[1], "wb"))


def _above_standard(fd: int) -> int:
    if fd >= _FIRST_FREE:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(fd)
    return moved

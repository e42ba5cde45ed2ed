"""Start child processes: fixed argument lists, no shell, a time limit, stderr in the result.

It uses posix_spawn(3) and poll(2): subprocess takes 1.3 ms more for a child, as much as iptables itself.
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
# The time in which a terminated child may undo its work.
_GRACE_S = 2.0


class Completed(NamedTuple):
    """A finished process; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: str


def find(name: str) -> str | None:
    """Return the path of a program from PATH, else from the usual system folders; None if there is none."""
    # Most calls run no program, and it takes 2 ms.
    import shutil

    return shutil.which(name) or shutil.which(name, path=_FALLBACK_PATH)


# These return the descriptors that children inherit besides the standard ones.
_lenders: list[Callable[[], int]] = []


@contextmanager
def lending(lender: Callable[[], int]) -> Iterator[None]:
    """Let children that are started in the block inherit the descriptor that `lender` returns."""
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
    """Run a program to its end; argv[0] is its path, and `env` None is our environment.

    `pass_stderr` lets it write to our stderr. Raise CniError 5 if it cannot be started, 11 if it takes longer
    than `timeout_s` seconds. It gets SIGTERM then, or when another exception ends this call, and SIGKILL
    `grace_s` seconds later: a plugin undoes its work in that time. Programs that load rules need none: they
    load all rules at once, and end at SIGTERM.
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
    """A running program; the end of `stack` terminates it if it still runs, and waits for it."""

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
        # Its process ID until it was waited for.
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
                    # Duplicated onto itself, it stays open in the child, also with FD_CLOEXEC.
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in [lender() for lender in _lenders]),
                ],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
            stack.callback(self._end)
            # Spawn and record the ID in one C call, so that no signal handler runs between the two.
            self._pid.extend(map(spawn, [env]))
        self._pidfd = os.pidfd_open(self._pid[0])
        stack.callback(os.close, self._pidfd)
        self._output: dict[FileIO, bytes] = {self._out: b"", self._err: b""}

    @property
    def stdout(self) -> bytes:
        return self._output[self._out]

    @property
    def stderr(self) -> bytes:
        return self._output[self._err]

    def serve(self, stdin: bytes, deadline: float) -> bool:
        """Write and read until the program has ended; return False when the time is up."""
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
                self._read_rest()
                self._reap()
                return True

    def _exchange(self, end: FileIO, rest: memoryview) -> tuple[memoryview, bool]:
        """Read from an end, or write to stdin; return the rest, and whether the end is still needed."""
        if end is self._in:
            try:
                rest = rest[end.write(rest) or 0 :]
            except BrokenPipeError:
                # The program has closed its stdin.
                return rest, False
            return rest, bool(rest)
        chunk = end.read(_CHUNK_BYTES)
        self._output[end] += chunk or b""
        return rest, chunk != b""

    def _read_rest(self) -> None:
        for end in self._output:
            while not end.closed and (chunk := end.read(_CHUNK_BYTES)):
                self._output[end] += chunk

    def _end(self) -> None:
        """Terminate it, kill it if it does not end, and wait for it."""
        if self._pid:
            try:
                self._terminate(self._pid[0])
            finally:
                self._reap()

    def _reap(self) -> None:
        for pid in self._pid:
            # A signal handler may have raised after the previous line, so the child may be reaped.
            with suppress(ProcessLookupError, ChildProcessError):
                # No effect on a child that has ended by itself.
                os.kill(pid, signal.SIGKILL)
                self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._pid = []

    def _terminate(self, pid: int) -> None:
        """Send SIGTERM; return when the child has ended or its time is up."""
        pidfd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            # A stopped child handles SIGTERM only after SIGCONT.
            for number in (signal.SIGTERM, signal.SIGCONT):
                os.kill(pid, number)
            poller.poll(self._grace_s * 1000)
        finally:
            os.close(pidfd)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[FileIO, FileIO]:
    """Return a pipe's ends, closed with their stacks; neither is one of the descriptors 0 to 2."""
    fds = [_above_standard(fd) for fd in os.pipe()]
    return reader.enter_context(FileIO(fds[0], "rb")), writer.enter_context(FileIO(fds[1], "wb"))


def _above_standard(fd: int) -> int:
    if fd >= _FIRST_FREE:
        return fd
    # Only if a standard descriptor was free.
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(fd)
    return moved

"""Run plugins as a runtime does, many at once if asked, and measure the time.

A plugin is done when its stdout has come to its end and it has exited. It is started by posix_spawn(3),
which costs little and the same however big this process is. All of it is for a child that has entered a host.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WITHIN_MS = 120_000
_PRACTICE = 3


class Call(NamedTuple):
    """One run of a plugin: the program, its whole environment and its stdin."""

    program: str
    env: Mapping[str, str]
    stdin: bytes
    may_fail: bool = False


# Yields calls. It is sent the stdout of each call before it yields the next one.
Work = Generator[Call, bytes, None]


class CallError(Exception):
    """Raised if a plugin failed or did not end in time. The message has the plugin's output."""


def run_all(works: Iterable[Work]) -> float:
    """Do all the work at once. Return the seconds until the last call has ended. Raises CallError."""
    queue = list(works)
    gc.disable()
    try:
        _practise()
        with _Burst() as burst:
            start = time.perf_counter()
            for work in queue:
                burst.start(work, next(work))
            burst.finish()
            return time.perf_counter() - start
    finally:
        gc.enable()


def _practise() -> None:
    """Start programs that do nothing: the first starts of a fresh child are slow, and must not count."""
    for _ in range(_PRACTICE):
        with _Burst() as burst:
            work = _nothing()
            burst.start(work, next(work))
            burst.finish()


def _nothing() -> Work:
    yield Call("/bin/true", {}, b"")


class _Running(NamedTuple):
    work: Work
    call: Call
    pid: int
    said: list[bytes]


class _Burst:
    """The plugins that run now, by the descriptor that reads their stdout."""

    def __init__(self) -> None:
        self._running: dict[int, _Running] = {}
        self._poll = select.poll()
        self._stderr = os.memfd_create("stderr")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader, each in self._running.items():
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)
            os.close(reader)
        os.close(self._stderr)

    def start(self, work: Work, call: Call) -> None:
        """Start a plugin; its configuration fits into the pipe."""
        stdin, feed = os.pipe()
        os.write(feed, call.stdin)
        os.close(feed)
        reader, stdout = os.pipe()
        moves = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate((stdin, stdout, self._stderr))]
        pid = os.posix_spawn(call.program, [call.program], call.env, file_actions=moves)
        os.close(stdin)
        os.close(stdout)
        self._running[reader] = _Running(work, call, pid, [])
        self._poll.register(reader, select.POLLIN)

    def finish(self) -> None:
        """Continue all work until it is done."""
        while self._running:
            ready = self._poll.poll(_WITHIN_MS)
            if not ready:
                names = sorted({os.path.basename(each.call.program) for each in self._running.values()})  # noqa: PTH119
                raise CallError(f"no answer of {', '.join(names)} in {_WITHIN_MS // 1000} s")
            for reader, _ in ready:
                self._read(reader)

    def _read(self, reader: int) -> None:
        each = self._running[reader]
        if data := os.read(reader, 65536):
            each.said.append(data)
            return
        self._poll.unregister(reader)
        os.close(reader)
        del self._running[reader]
        _, status = os.waitpid(each.pid, 0)
        stdout = b"".join(each.said)
        if status and not each.call.may_fail:
            self._fail(each.call, stdout)
        try:
            call = each.work.send(stdout)
        except StopIteration:
            return
        self.start(each.work, call)

    def _fail(self, call: Call, stdout: bytes) -> None:
        stderr = os.pread(self._stderr, 4000, 0)
        said = (stdout + b" " + stderr).decode(errors="replace").strip()
        raise CallError(f"{call.program} {call.env.get('CNI_COMMAND')} failed: {said}")

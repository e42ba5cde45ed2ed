"""Being the process that the caller has started, and nobody's again."""

from __future__ import annotations

import os
import sys
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Mapping


class Disguise:
    """What a worker wears during a call; made once, in the worker."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.environ.clear()
        self.take_off()
        sys.stdout = TextIOWrapper(_writer(1), "utf-8")
        sys.stderr = TextIOWrapper(_writer(2), "utf-8", "backslashreplace", line_buffering=True)

    def put_on(self, env: Mapping[str, str], umask: int, fds: list[int]) -> tuple[BinaryIO, BinaryIO]:
        """Become the caller's process and close `fds`; gives its stdin and stdout.

        Raises OSError, and changes nothing, when the last one is no folder.
        """
        *streams, folder = fds
        try:
            os.fchdir(folder)
            for target, fd in enumerate(streams):
                os.dup2(fd, target)
        finally:
            for fd in fds:
                os.close(fd)
        os.umask(umask)
        _set_environment(env)
        # A new one: what one caller sent and the plugin did not read must not be there for the next.
        sys.stdin = TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), "utf-8")
        return cast("BinaryIO", sys.stdin.buffer), cast("BinaryIO", sys.stdout.buffer)

    def flush(self) -> None:
        """Write what lies in buffers still, as a process does at its end. Raises OSError."""
        sys.stdout.flush()
        sys.stderr.flush()

    def take_off(self) -> None:
        """Let go of all that was the caller's; its pipes reach their end when this returns."""
        for target in range(3):
            os.dup2(self._null, target)
        os.chdir("/")
        os.umask(0o022)
        _set_environment({})


def _writer(fd: int) -> BufferedWriter:
    return BufferedWriter(FileIO(fd, "w", closefd=False))


def _set_environment(env: Mapping[str, str]) -> None:
    """Let `os.environ` be these variables, and child processes get them.

    Not by putenv(3) for each, 0.1 ms of a call: no C library that a worker uses asks for one.
    """
    vars(os.environ)["_data"] = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}

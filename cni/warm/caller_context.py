"""The caller's environment and standard streams in a worker, which are reset after each call."""

from __future__ import annotations

import os
import sys
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

# As the interpreter encodes variables.
_ENCODING = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class CallerContext:
    """`os.environ` and the streams of `sys` in a worker. Created once, in the worker."""

    def __init__(self) -> None:
        os.environ.clear()
        self.restore()
        sys.stdout = TextIOWrapper(_writer(1), "utf-8")
        # Unbuffered: output that one caller's stderr does not accept must not reach the next caller.
        stderr = cast("BinaryIO", FileIO(2, "w", closefd=False))
        sys.stderr = TextIOWrapper(stderr, "utf-8", "backslashreplace", write_through=True)

    def adopt(self, env: Mapping[str, str]) -> tuple[BinaryIO, BinaryIO]:
        """Adopt the caller's environment. Return its stdin and stdout."""
        _set_environment(env)
        return cast("BinaryIO", sys.stdin.buffer), cast("BinaryIO", sys.stdout.buffer)

    def flush(self) -> None:
        """Write the buffer of stdout, as a process does when it exits. Raises OSError."""
        sys.stdout.flush()

    def restore(self) -> None:
        """Clear the caller's environment and its unread input."""
        _set_environment({})
        # A new stream: input that the plugin did not read must not reach the next call.
        sys.stdin = TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), "utf-8")


def _writer(fd: int) -> BufferedWriter:
    return BufferedWriter(FileIO(fd, "w", closefd=False))


def _set_environment(env: Mapping[str, str]) -> None:
    """Replace the variables of `os.environ`, which child processes inherit.

    putenv(3) is not called, which saves 0.1 ms of a call: no C library in a worker reads a variable.
    """
    vars(os.environ)["_data"] = {
        name.encode(*_ENCODING): value.encode(*_ENCODING) for name, value in env.items()
    }

"""What a worker's Python has of the caller: its environment and streams, and nobody's again."""

from __future__ import annotations

import os
import sys
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

# As the interpreter encodes them.
_AS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Disguise:
    """What a worker wears during a call, when its descriptors are the caller's; made once, in the worker."""

    def __init__(self) -> None:
        os.environ.clear()
        self.take_off()
        sys.stdout = TextIOWrapper(_writer(1), "utf-8")
        # Without a buffer: a line that one caller's stderr does not take must not be there for the next one.
        stderr = cast("BinaryIO", FileIO(2, "w", closefd=False))
        sys.stderr = TextIOWrapper(stderr, "utf-8", "backslashreplace", write_through=True)

    def put_on(self, env: Mapping[str, str]) -> tuple[BinaryIO, BinaryIO]:
        """Have the caller's environment; gives its stdin and stdout."""
        _set_environment(env)
        return cast("BinaryIO", sys.stdin.buffer), cast("BinaryIO", sys.stdout.buffer)

    def flush(self) -> None:
        """Write what lies in the buffer of stdout, as a process does at its end. Raises OSError."""
        sys.stdout.flush()

    def take_off(self) -> None:
        """Forget the caller, and be ready for the next one."""
        _set_environment({})
        # A new one: what one caller sent and the plugin did not read must not be there for the next.
        sys.stdin = TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), "utf-8")


def _writer(fd: int) -> BufferedWriter:
    return BufferedWriter(FileIO(fd, "w", closefd=False))


def _set_environment(env: Mapping[str, str]) -> None:
    """Let `os.environ` be these variables, and child processes get them.

    Not by putenv(3) for each, 0.1 ms of a call: no C library that a worker uses asks for one.
    """
    vars(os.environ)["_data"] = {name.encode(*_AS): value.encode(*_AS) for name, value in env.items()}

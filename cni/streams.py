"""A call's stdin and stdout, whatever the caller has made them: blocking or not, files, pipes or sockets."""

from __future__ import annotations

import os
import time
from io import BytesIO
from typing import TYPE_CHECKING

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

# A caller that reads nothing for so long does not want the answer.
_WRITTEN_WITHIN_S = 60

_begin: Callable[[], None] | None = None


def read_all(stdin: BinaryIO) -> bytes:
    """Return all that the caller sends, until its end. Raise CniError 5 if it cannot be read."""
    try:
        text = stdin.read()
        if isinstance(stdin, BytesIO) or os.get_blocking(stdin.fileno()):
            return text
        # What was there when it was read, or None.
        parts = [text or b""]
        while (part := _read_waiting(stdin.fileno())) != b"":
            parts.append(part)
        return b"".join(parts)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(
            Code.IO_FAILURE,
            f"could not read the network configuration from stdin: {reason}",
            "Open stdin for reading: a file, a pipe or a socket with one JSON object.",
        ) from error


def begin_answers_by(begin: Callable[[], None]) -> None:
    """Have `begin` called before a document is written to the caller's own stdout."""
    global _begin  # noqa: PLW0603 - of the process, as its stdout is
    _begin = begin


def begin_answer(stdout: BinaryIO) -> None:
    """Take the right to write, if somebody answers in place of this process when it is killed."""
    if _begin is not None and not isinstance(stdout, BytesIO):
        _begin()


def write_all(stdout: BinaryIO, text: bytes) -> None:
    """Write a document, whole. Raise OSError."""
    if isinstance(stdout, BytesIO):
        stdout.write(text)
        return
    rest = memoryview(text)
    deadline = time.monotonic() + _WRITTEN_WITHIN_S
    while rest:
        try:
            rest = rest[os.write(stdout.fileno(), rest) :]
        except BlockingIOError:
            if not _is_ready(stdout.fileno(), is_for_writing=True, until=deadline):
                raise


def _read_waiting(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            _is_ready(fd)


def _is_ready(fd: int, *, is_for_writing: bool = False, until: float | None = None) -> bool:
    # Here: almost every stream blocks.
    import select

    poller = select.poll()
    poller.register(fd, select.POLLOUT if is_for_writing else select.POLLIN)
    left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
    return bool(poller.poll(left_ms))

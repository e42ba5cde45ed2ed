"""Read stdin and write stdout of a call. They may be blocking or not, files, pipes or sockets."""

from __future__ import annotations

import os
import time
from io import BytesIO
from typing import TYPE_CHECKING

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

# A caller that reads nothing for this long gets no answer.
_WRITTEN_WITHIN_S = 60

_begin: Callable[[], None] | None = None


def read_all(stdin: BinaryIO) -> bytes:
    """Return stdin until its end. Raise CniError 5 if it cannot be read."""
    try:
        text = stdin.read()
        if isinstance(stdin, BytesIO) or os.get_blocking(stdin.fileno()):
            return text
        # The bytes that had arrived, or None.
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
    """Call `begin` before each document that is written to the caller's own stdout."""
    global _begin  # noqa: PLW0603 - one for the process, as its stdout
    _begin = begin


def begin_answer(stdout: BinaryIO) -> None:
    """Claim the right to write, if another process answers in place of this one when it is killed."""
    if _begin is not None and not isinstance(stdout, BytesIO):
        _begin()


def write_all(stdout: BinaryIO, text: bytes) -> None:
    """Write a whole document. Raise OSError."""
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
    # Imported here, because almost every stream blocks.
    import select

    poller = select.poll()
    poller.register(fd, select.POLLOUT if is_for_writing else select.POLLIN)
    left_ms = None if until is None else max(0.0, until - time.monotonic()) * 1000
    return bool(poller.poll(left_ms))

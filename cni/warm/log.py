"""The log of the server and its workers: the journal or a file, never a caller's output."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

FILE = Path("/run/pycni/warm/log")
_MAX_BYTES = 1 << 20
_STDERR = 2

_journal = -1


def keep_journal() -> None:
    """Duplicate stderr, which systemd has connected to the journal, because calls replace descriptor 2."""
    global _journal  # noqa: PLW0603 - one log per process
    _journal = fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)


def log(text: str) -> None:
    """Write one line; ignore failures."""
    try:
        if _journal >= 0:
            os.write(_journal, f"{text}\n".encode(errors="replace"))
        else:
            _to_file(
                f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {os.getpid()} {text}\n".encode(errors="replace")
            )
    except OSError:
        return


def _to_file(line: bytes) -> None:
    # O_NONBLOCK: a FIFO in place of the file must not block the server.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(FILE, flags, 0o600)
    try:
        if os.fstat(fd).st_size > _MAX_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, line)
    finally:
        os.close(fd)

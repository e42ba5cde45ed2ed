"""What the server and its workers have to say: lines in the journal or in a file, never a caller's output."""

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
    """Write to what is stderr now, as systemd connects it with the journal; calls change descriptor 2."""
    global _journal  # noqa: PLW0603 - one log per process, as there is one stderr
    _journal = fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)


def log(text: str) -> None:
    """Write one line; a failure is no error."""
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
    # A FIFO in its place that nobody reads must not keep the server, and with it all calls, waiting.
    how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(FILE, how, 0o600)
    try:
        if os.fstat(fd).st_size > _MAX_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, line)
    finally:
        os.close(fd)

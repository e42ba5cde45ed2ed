"""What the server and its workers have to say: lines in the journal or in a file, never a caller's output."""

from __future__ import annotations

import os
import time
from pathlib import Path

FILE = Path("/run/pycni/warm/log")
_MAX_BYTES = 1 << 20


def log(text: str) -> None:
    """Write one line: to stderr under systemd, which keeps it, else to `FILE`; a failure is no error."""
    try:
        if "JOURNAL_STREAM" in os.environ:
            os.write(2, f"{text}\n".encode())
        else:
            _to_file(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {os.getpid()} {text}\n".encode())
    except OSError:
        return


def _to_file(line: bytes) -> None:
    fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size > _MAX_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, line)
    finally:
        os.close(fd)

"""What a server tells of itself, and where: a file beside its socket, locked as long as it lives.

The lock, not the socket, is how the server is found: asking the socket would be a call, and under systemd
would start a server.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from cni.warm.worker_pool import Crew

FOLDER = Path("/run/pycni/warm")
SUFFIX = ".status"
_FLOCK = struct.Struct("@hhqqi4x")  # fcntl(2), struct flock: type, whence, start, length, pid


class Report:
    """The server's side. POSIX locks are not inherited: workers do not keep it.

    An older server at the same path, whose socket has been replaced, is told to end.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path.with_suffix(SUFFIX)
        self._started = time.monotonic()
        self._asked = 0
        older = _descriptor_of_holder(self._path)
        # A new file: an older server has the lock of its own for as long as it lives, and removes only that.
        self._path.unlink(missing_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _signal(older, signal.SIGTERM)

    def write(self, crew: Crew) -> None:
        """Answer a question; `asked` counts them, so that who asked knows the answer from an older one."""
        self._asked += 1
        told = {
            "uptime_s": round(time.monotonic() - self._started),
            "requests": crew.requests,
            "workers": crew.workers,
            "busy": crew.busy,
            "workers_made": crew.made,
            "asked": self._asked,
        }
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(told).encode(), 0)

    def remove(self) -> None:
        """Be found no more; the file of a newer server stays."""
        with suppress(OSError):
            if self._path.lstat().st_ino == os.fstat(self._fd).st_ino:
                self._path.unlink()


def holder(path: Path) -> int:
    """Return the process ID of the server that a status file belongs to; 0 when it is dead.

    A lock of an open file description belongs to no process and has the number -1, which kill(2) takes for
    every process; one of another process ID namespace has 0. Neither is a server's.
    """
    with suppress(OSError), _open(path) as file:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK or pid <= 0 else int(pid)
    return 0


def signal_holder(path: Path, number: int) -> None:
    """Signal the server that a status file belongs to, and no process that has got its number since."""
    _signal(_descriptor_of_holder(path), number)


def _descriptor_of_holder(path: Path) -> int:
    """Return a descriptor of the server's process; -1 when it is dead."""
    if not (pid := holder(path)):
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    # It still held the lock when the descriptor was there, so that this is its process.
    if holder(path) == pid:
        return pidfd
    os.close(pidfd)
    return -1


def _signal(pidfd: int, number: int) -> None:
    """Signal a process by its descriptor, -1 for none, and close that."""
    if pidfd >= 0:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        os.close(pidfd)


def read(path: Path) -> dict[str, Any]:
    """Give the last answer, {} when there is none or only half of it."""
    with suppress(OSError, ValueError, RecursionError), _open(path) as file:
        told: Any = json.loads(file.read())
        return told if isinstance(told, dict) else {}
    return {}


def _open(path: Path) -> BinaryIO:
    """Open a status file. Raises OSError, also for what is no file of the user's own."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(fd, "rb") if _is_own_file(fd) else None
    if file is None:
        os.close(fd)
        raise OSError(f"{path} is no status file")
    return file


def _is_own_file(fd: int) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()

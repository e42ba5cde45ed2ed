"""A server's status file beside its socket, which the server keeps locked while it lives.

Servers are found by the lock, not by the socket: connecting would be a call, and under systemd would start
a server.
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
    from cni.warm.worker_pool import WorkerPool

FOLDER = Path("/run/pycni/warm")
SUFFIX = ".status"
_FLOCK = struct.Struct("@hhqqi4x")  # fcntl(2), struct flock: type, whence, start, length, pid


class Report:
    """The server's side. Workers do not hold the lock, because fork(2) does not inherit POSIX locks.

    An older server at the same path, whose socket has been replaced, gets SIGTERM.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path.with_suffix(SUFFIX)
        self._started = time.monotonic()
        self._written = 0
        older = _pidfd_of_holder(self._path)
        # A new file: an older server keeps the lock of its own file, and removes only that file.
        self._path.unlink(missing_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _signal(older, signal.SIGTERM)

    def write(self, pool: WorkerPool) -> None:
        """Write a report. Its key `asked` counts reports, so that a client recognises a new one."""
        self._written += 1
        report = {
            "uptime_s": round(time.monotonic() - self._started),
            "requests": pool.requests,
            "workers": pool.workers,
            "busy": pool.busy,
            "workers_made": pool.forked,
            "asked": self._written,
        }
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(report).encode(), 0)

    def remove(self) -> None:
        """Remove the status file, but not a newer server's."""
        with suppress(OSError):
            if self._path.lstat().st_ino == os.fstat(self._fd).st_ino:
                self._path.unlink()


def holder(path: Path) -> int:
    """Return the process ID of the server that a status file belongs to; 0 if the server is dead.

    A lock of an open file description has the process ID -1, which means every process to kill(2). A lock
    from another process ID namespace has 0. Neither is a server's lock.
    """
    with suppress(OSError), _open(path) as file:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, query))
        return 0 if kind == fcntl.F_UNLCK or pid <= 0 else int(pid)
    return 0


def signal_holder(path: Path, number: int) -> None:
    """Signal the server that a status file belongs to, even if its process ID has been reused."""
    _signal(_pidfd_of_holder(path), number)


def _pidfd_of_holder(path: Path) -> int:
    """Return a pidfd of the server's process; -1 if the server is dead."""
    if not (pid := holder(path)):
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    # The server holds the lock after the pidfd was opened, so the pidfd is the server's.
    if holder(path) == pid:
        return pidfd
    os.close(pidfd)
    return -1


def _signal(pidfd: int, number: int) -> None:
    """Signal a process by its pidfd and close that; do nothing for -1."""
    if pidfd >= 0:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        os.close(pidfd)


def read(path: Path) -> dict[str, Any]:
    """Return the last report; {} if there is none, or if it is half written."""
    with suppress(OSError, ValueError, RecursionError), _open(path) as file:
        report: Any = json.loads(file.read())
        return report if isinstance(report, dict) else {}
    return {}


def _open(path: Path) -> BinaryIO:
    """Open a status file. Raises OSError, also if it is not a regular file of the calling user."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(fd, "rb") if _is_own_file(fd) else None
    if file is None:
        os.close(fd)
        raise OSError(f"{path} is not a status file of this user")
    return file


def _is_own_file(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

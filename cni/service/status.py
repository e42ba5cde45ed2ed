"""The status file of a process that serves, which the process keeps locked while it lives.

Processes are found by the lock, not by their socket: connecting would be a call, and under systemd would
start a process. It is a POSIX lock, which a forked child does not hold. What the guard of a helper
does not need is imported in functions.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

SUFFIX = ".status"
_FLOCK = struct.Struct("@hhqqi4x")  # fcntl(2), struct flock: type, whence, start, length, pid
_LARGEST = 1 << 24
# The kernel does not keep a read and a write at the same time apart.
_READS = 3


def create(path: str) -> int:
    """Create a status file and lock it; return its descriptor.

    An older process at the same path gets SIGTERM. It keeps the lock of its own file, and removes only that.
    """
    older = _pidfd_of_holder(path)
    remove(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _signal(older, signal.SIGTERM)
    return fd


def write(fd: int, content: bytes) -> None:
    """Replace the content of a status file; ignore a full disk.

    In one write, with blanks over what was longer before: a reader must not find the file empty.
    """
    try:
        os.pwrite(fd, content.ljust(os.fstat(fd).st_size), 0)
    except OSError:
        return


def remove(path: str, fd: int = -1) -> None:
    """Remove a status file; with `fd`, only if it is that one and not a newer process's."""
    try:
        if fd < 0 or is_current(path, fd):
            os.unlink(path)
    except OSError:
        return


def is_current(path: str, fd: int) -> bool:
    """Return whether a status file is at its path, and not a newer process's or none."""
    try:
        return os.lstat(path).st_ino == os.fstat(fd).st_ino
    except OSError:
        return False


def holder(path: str) -> int:
    """Return the process ID of the process that a status file belongs to; 0 if it is dead.

    A lock of an open file description has the process ID -1, which means every process to kill(2). A lock
    from another process ID namespace has 0. Neither is a serving process's lock.
    """
    fd = _open(path)
    if fd < 0:
        return 0
    try:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    except OSError:
        return 0
    finally:
        os.close(fd)
    return 0 if kind == fcntl.F_UNLCK or pid <= 0 else int(pid)


def signal_holder(path: str, number: int) -> None:
    """Signal the process that a status file belongs to, even if its process ID has been reused."""
    _signal(_pidfd_of_holder(path), number)


def _pidfd_of_holder(path: str) -> int:
    """Return a pidfd of the holder's process; -1 if it is dead."""
    if not (pid := holder(path)):
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    # The process holds the lock after the pidfd was opened, so the pidfd is the process's.
    if holder(path) == pid:
        return pidfd
    os.close(pidfd)
    return -1


def _signal(pidfd: int, number: int) -> None:
    """Signal a process by its pidfd and close that; do nothing for -1."""
    if pidfd >= 0:
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def read(path: str) -> dict[str, Any]:
    """Return the last report; {} if there is none."""
    import json

    fd = _open(path)
    if fd < 0:
        return {}
    try:
        for _ in range(_READS):
            try:
                report: Any = json.loads(os.pread(fd, _LARGEST, 0))
            except (ValueError, RecursionError):
                continue
            return report if isinstance(report, dict) else {}
    except OSError:
        return {}
    finally:
        os.close(fd)
    return {}


def pss_kib(pid: int) -> int:
    """Return a process's PSS in KiB, 0 if it has ended. proc(5), smaps_rollup."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _open(path: str) -> int:
    """Open a status file; return -1 if it is not there, or not a regular file of the calling user."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    return -1

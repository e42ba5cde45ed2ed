"""An exclusive lock on a file, with a limit on the time to wait.

It is flock(2), as in the Go plugins, so that the two suites exclude each other. The kernel releases the
lock when the process ends, for whatever reason.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.faults import point
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterator

# Between two attempts. Short at first, as most holders release the lock within a millisecond.
_FIRST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.004
_REMOVAL_WAITS_S = 1
# Between two looks at who holds the lock, and how often a wait is longer than its limit at most.
_LOOK_S = 1
_MOST_LIMITS = 4


@contextmanager
def locked(path: Path | str, timeout_s: float = 30, mode: int = 0o600) -> Iterator[int]:
    """Hold the lock on a file for the block; create it with `mode` if missing. Its folder must exist.

    Yield its descriptor: a process with a copy of that holds the lock, too. Raise CniError 11, naming the
    holder, if another process holds it for longer than `timeout_s` seconds. While processes take turns the
    wait goes on, for four times as long at most: dozens of calls at once on a busy host all succeed. Raise
    CniError 106 if the file cannot be opened or is not a regular file.
    """
    fd = _acquire(path, _Patience(timeout_s, _MOST_LIMITS), mode)
    try:
        point("lock.taken")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def held(fd: int, path: str, timeout_s: float = 30, *, removes: bool = False) -> Iterator[None]:
    """Hold the lock on an open file, which is none of this suite's, for the block; `path` is for messages.

    Every process that can open the file can hold the lock for ever, and several can take turns at it: the
    limit never begins anew. Raise CniError 11, naming the holder, if others hold it for longer than
    `timeout_s` seconds. A block that only `removes` waits for a second, and runs without the lock then.
    """
    limit_s = _REMOVAL_WAITS_S if removes else timeout_s
    try:
        _wait(fd, path, _Patience(limit_s, 1))
    except CniError as error:
        if not removes or error.code != Code.TRY_AGAIN:
            raise
        note(f"pycni: going on without the lock: {error}")
        yield
        return
    try:
        point("lock.taken")
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


class _Patience:
    """How long to wait: the limit begins anew when another process is seen to hold the lock.

    In all it is no longer than `most` limits.
    """

    def __init__(self, limit_s: float, most: int) -> None:
        self._limit_s = limit_s
        self._longest_s = most * limit_s
        self._start = self._looked = time.monotonic()
        self._deadline = self._start + limit_s
        self._holder: str | None = None
        self._is_longer = False

    def is_over(self, fd: int) -> bool:
        """Return whether the time is over. Call it again and again."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            before, self._holder, self._looked = self._holder, find_holder(fd), now
            if before and self._holder and before != self._holder:
                deadline = min(now + self._limit_s, self._start + self._longest_s)
                self._is_longer |= deadline > self._deadline
                self._deadline = deadline
        return now >= self._deadline

    def waited_s(self) -> float:
        """Return the limit in seconds, or the time so far if it began anew."""
        return round(time.monotonic() - self._start) if self._is_longer else self._limit_s


def _acquire(path: Path | str, patience: _Patience, mode: int) -> int:
    """Return a descriptor that holds the lock on the file that has the name now."""
    while True:
        fd = _open(path, mode)
        try:
            _wait(fd, path, patience)
            if _is_still_named(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # The file was removed meanwhile: the next process would lock another file of this name.
        os.close(fd)


def _open(path: Path | str, mode: int) -> int:
    # O_NONBLOCK: a planted FIFO must not block us.
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, mode)
    except OSError as error:
        raise CniError(Code.STORE, f"could not open lock {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CniError(Code.STORE, f"could not open lock {path}: not a regular file", "remove it")
    return fd


def _wait(fd: int, path: Path | str, patience: _Patience) -> None:
    pause_s = _FIRST_PAUSE_S
    while not _try(fd, path):
        if patience.is_over(fd):
            raise CniError(
                Code.TRY_AGAIN,
                f"could not lock {path} within {patience.waited_s():g} s",
                f"it is held by {find_holder(fd) or 'an unknown process'}",
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _try(fd: int, path: Path | str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CniError(Code.STORE, f"could not lock {path}: {(error.strerror or '').lower()}") from error
    return True


def _is_still_named(fd: int, path: Path | str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def find_holder(fd: int) -> str | None:
    """Return the holder of the flock on an open file, as "process 123 (bridge)"; None if unknown.

    /proc/locks does not show processes of other PID namespaces, see proc(5).
    """
    file = f"{_device(fd)}:{os.fstat(fd).st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        # "1: FLOCK  ADVISORY  WRITE 123 00:2f:4567 0 EOF"; waiting ones have "->" as second word.
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == file and int(words[4]) > 0:
            return f"process {words[4]}{_command(words[4])}"
    return None


def _device(fd: int) -> str:
    """Return the device of a file's mount as /proc/locks shows it: file systems share inode numbers.

    stat(2) shows another device for a file system with subvolumes, as btrfs.
    """
    with suppress(OSError):
        words_of_fd = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="utf-8").split()
        mount = words_of_fd[words_of_fd.index("mnt_id:") + 1]
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            # "36 35 98:0 / /mnt rw - ext3 /dev/root rw": the third word is the device.
            words = line.split()
            if words[0] == mount:
                major, minor = words[2].split(":")
                return f"{int(major):02x}:{int(minor):02x}"
    device = os.fstat(fd).st_dev
    return f"{os.major(device):02x}:{os.minor(device):02x}"


def _command(pid: str) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8').strip()})"
    except OSError:
        return ""

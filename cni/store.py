"""Small files that are never lost or halved, whatever ends the process or the machine.

Content is written to a file beside the target, synced, and then given the target's name. A symbolic link
in the place of the file itself is never followed; folders above it may be links. Every failure is
CniError 106 that names the path; one that is reported leaves nothing behind.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.faults import point

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How names of unfinished files begin: who keeps a folder may remove what a crash left.
UNFINISHED_PREFIX = ".unfinished-"

# More than this is no file of ours; it keeps a planted one from filling the memory.
_LARGEST_BYTES = 16 << 20


def write_atomic(path: Path, content: bytes, mode: int = 0o600, *, beside: str = "") -> None:
    """Give `path` this content, whether it exists or not; its folder must exist.

    `beside` is the name of the unfinished file, for a folder that one process at a time writes to: what a
    crash leaves has a known name then, and the next one takes its place.
    """
    with _told("write", path), _unfinished(path, content, mode, beside) as unfinished:
        unfinished.replace(path)
        point("store.written")


def create_exclusive(path: Path, content: bytes, mode: int = 0o600, *, beside: str = "") -> bool:
    """Make `path` with this content; give False, changing nothing, when anything has the name.

    `beside` is as in `write_atomic`.
    """
    if os.path.lexists(path):
        return False
    with _told("create", path), _unfinished(path, content, mode, beside) as unfinished:
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
        point("store.written")
        return True


def read(path: Path) -> bytes | None:
    """Give the content of a regular file, None when there is nothing of this name."""
    with _told("read", path):
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CniError(Code.STORE, f"could not read {path}: not a regular file", "remove it")
            return _read_all(fd, path)
        finally:
            os.close(fd)


def remove(path: Path) -> bool:
    """Remove a file; give False when there is nothing of this name."""
    with _told("remove", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        point("store.removed")
        return True


def ensure_directory(path: Path, mode: int = 0o700) -> list[Path]:
    """Make the folder and those above it that are missing; give those made, the deepest one last.

    `mode` is subject to the umask. When one cannot be made, those made before it are removed.
    """
    made: list[Path] = []
    if os.path.lexists(path):
        return made
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    try:
        for each in reversed(missing):
            with _told("create", each), suppress(FileExistsError):
                each.mkdir(mode)
                made.append(each)
                point("store.folder-made")
    except CniError:
        remove_directories(made)
        raise
    return made


def check_writable(path: Path) -> None:
    """Raise CniError 106 when no file can be made in the folder, which need not exist; nothing is left."""
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    with _told("write to", existing), _unfinished(existing / "probe", b"?", 0o600):
        pass


def remove_directories(paths: list[Path]) -> None:
    """Remove these folders, the last one first, up to one that is in use or cannot be removed."""
    with suppress(OSError):
        for each in reversed(paths):
            each.rmdir()


@contextmanager
def _unfinished(path: Path, content: bytes, mode: int, beside: str = "") -> Iterator[Path]:
    """Give a synced file beside `path`; it is gone afterwards, unless it was given another name."""
    unfinished = path.with_name(beside or f"{UNFINISHED_PREFIX}{os.urandom(6).hex()}")
    if beside:
        unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            _fill(fd, content, mode)
        finally:
            os.close(fd)
        point("store.unfinished")
        yield unfinished
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _fill(fd: int, content: bytes, mode: int) -> None:
    # Whatever the umask is.
    os.fchmod(fd, mode)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.fsync(fd)


def _read_all(fd: int, path: Path) -> bytes:
    content = b""
    while chunk := os.read(fd, 1 << 16):
        content += chunk
        if len(content) > _LARGEST_BYTES:
            raise CniError(Code.STORE, f"could not read {path}: it is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


@contextmanager
def _told(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.STORE, f"could not {doing} {path}: {reason}") from error

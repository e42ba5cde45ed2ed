"""Small files that are never lost or half written, whatever ends the process or the machine.

A file is written under another name in the same folder, synced, and renamed to its target. A symbolic link
in place of the file itself is never followed. Folders above it may be links that root or we have created.
Every failure is CniError 106 with the path, and leaves no file behind. Paths may be strings, as pathlib takes
0.1 ms of a call.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.faults import point

if TYPE_CHECKING:
    from pathlib import Path

# Names of unfinished files begin so. The module that uses a folder may remove those that a crash left.
UNFINISHED_PREFIX = ".unfinished-"

# Our files are smaller. The limit keeps a planted file from filling the memory.
_LARGEST_BYTES = 16 << 20


def write_atomic(path: Path | str, content: bytes, mode: int = 0o600, *, beside: str = "") -> None:
    """Write a file, whether it exists or not; its folder must exist.

    `beside` is the name of the unfinished file, for a folder that one process at a time writes to. An
    unfinished file that a crash left then has a known name, and the next write replaces it.
    """
    target = str(path)
    unfinished = _name_unfinished(target, beside)
    try:
        _write_unfinished(unfinished, content, mode, is_known=bool(beside))
        os.replace(unfinished, target)
    except BaseException as error:
        _unlink(unfinished)
        if isinstance(error, OSError):
            raise _failed("write", path, error) from error
        raise
    point("store.written")


def create_exclusive(path: Path | str, content: bytes, mode: int = 0o600, *, beside: str = "") -> bool:
    """Create a file; return False, and change nothing, if anything has the name.

    `beside` is as in `write_atomic`.
    """
    target = str(path)
    if os.path.lexists(target):
        return False
    unfinished = _name_unfinished(target, beside)
    try:
        _write_unfinished(unfinished, content, mode, is_known=bool(beside))
        os.link(unfinished, target)
    except FileExistsError:
        return False
    except OSError as error:
        raise _failed("create", path, error) from error
    finally:
        _unlink(unfinished)
    point("store.written")
    return True


def read(path: Path | str) -> bytes | None:
    """Return the content of a regular file; None if nothing has the name."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CniError(Code.STORE, f"could not read {path}: not a regular file", "remove it")
        return _read_all(fd, path)
    except OSError as error:
        raise _failed("read", path, error) from error
    finally:
        os.close(fd)


def remove(path: Path | str) -> bool:
    """Remove a file; return False if nothing has the name."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed("remove", path, error) from error
    point("store.removed")
    return True


def ensure_directory(path: Path, mode: int = 0o700) -> list[Path]:
    """Create a folder and missing ones above it; return the folders created, the deepest one last.

    `mode` is subject to the umask. If a folder cannot be created, those created before it are removed. Raise
    CniError 106 if other users than root and we can change the folder, or have put a link in its place.
    """
    created: list[Path] = []
    if (status := _look(path)) is not None:
        _check_folder(path, status)
        return created
    missing = [each for each in (path, *path.parents) if not os.path.lexists(each)]
    for each in missing[-1:]:
        _check_link(each.parent)
    try:
        for each in reversed(missing):
            try:
                each.mkdir(mode)
            except FileExistsError:
                continue
            except OSError as error:
                raise _failed("create", each, error) from error
            created.append(each)
            point("store.folder-made")
    except CniError:
        remove_directories(created)
        raise
    return created


def check_keepers(path: Path) -> None:
    """Raise CniError 106 if other users than root and we can change a folder; it need not exist."""
    if (status := _look(path)) is not None:
        _check_folder(path, status)


def _look(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        # Creating it reports the reason.
        return None


def _check_folder(path: Path, status: os.stat_result) -> None:
    """Refuse a folder, or a link to one, that another user can change: that user would redirect our files."""
    if stat.S_ISLNK(status.st_mode):
        _check_owner(path, status)
        with suppress(OSError):
            _check_folder(path, path.stat())
        return
    _check_owner(path, status)
    is_others_group = status.st_gid not in {0, os.getegid()}
    if status.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if is_others_group else 0)):
        raise CniError(
            Code.STORE,
            f"could not use {path}: users other than its owner may write to it",
            f"chmod go-w {path}, when you know what is in it",
        )


def _check_link(path: Path) -> None:
    """Refuse a symlink owned by another user: folders would be created behind it."""
    status = _look(path)
    if status is not None and stat.S_ISLNK(status.st_mode):
        _check_owner(path, status)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise CniError(
            Code.STORE,
            f"could not use {path}: it belongs to user {status.st_uid}",
            "it must be root's or the caller's: remove it, or give it to root when you know what is in it",
        )


def check_writable(path: Path) -> None:
    """Raise CniError 106 if no file can be created in a folder, which need not exist; leave no file."""
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    unfinished = _name_unfinished(str(existing / "probe"), "")
    try:
        _write_unfinished(unfinished, b"?", 0o600, is_known=False)
    except OSError as error:
        raise _failed("write to", existing, error) from error
    finally:
        _unlink(unfinished)


def remove_directories(paths: list[Path]) -> None:
    """Remove these folders, the last one first; stop at one that is not empty or cannot be removed."""
    with suppress(OSError):
        for each in reversed(paths):
            each.rmdir()


def _name_unfinished(target: str, beside: str) -> str:
    folder = target.rpartition("/")[0]
    return f"{folder}/{beside or UNFINISHED_PREFIX + os.urandom(6).hex()}"


def _write_unfinished(name: str, content: bytes, mode: int, *, is_known: bool) -> None:
    """Create a synced file; replace one that a crash left under a known name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, mode)
    except FileExistsError:
        if not is_known:
            raise
        _unlink(name)
        fd = os.open(name, flags, mode)
    try:
        _fill(fd, content, mode)
    finally:
        os.close(fd)
    point("store.unfinished")


def _unlink(name: str) -> None:
    # The write reports the cause: a folder of that name, or a read-only file system.
    with suppress(OSError):
        os.unlink(name)


def _fill(fd: int, content: bytes, mode: int) -> None:
    # Whatever the umask is.
    os.fchmod(fd, mode)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.fsync(fd)


def _read_all(fd: int, path: Path | str) -> bytes:
    chunks = []
    rest = _LARGEST_BYTES
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
        rest -= len(chunk)
        if rest < 0:
            raise CniError(Code.STORE, f"could not read {path}: it is larger than {_LARGEST_BYTES >> 20} MiB")
    return b"".join(chunks)


def _failed(doing: str, path: Path | str, error: OSError) -> CniError:
    return CniError(Code.STORE, f"could not {doing} {path}: {(error.strerror or str(error)).lower()}")

"""Small files that are never lost or halved, whatever ends the process or the machine.

Content is written to a file beside the target, synced, and then given the target's name. A symbolic link
in the place of the file itself is never followed; folders above it may be links that root or we have
made. Every failure is CniError 106 that names the path; one that is reported leaves nothing behind.
Paths may be texts, as pathlib takes 0.1 ms of a call.
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

# How names of unfinished files begin: who keeps a folder may remove what a crash left.
UNFINISHED_PREFIX = ".unfinished-"

# More than this is no file of ours; it keeps a planted one from filling the memory.
_LARGEST_BYTES = 16 << 20


def write_atomic(path: Path | str, content: bytes, mode: int = 0o600, *, beside: str = "") -> None:
    """Give `path` this content, whether it exists or not; its folder must exist.

    `beside` is the name of the unfinished file, for a folder that one process at a time writes to: what a
    crash leaves has a known name then, and the next one takes its place.
    """
    target = str(path)
    unfinished = _name_unfinished(target, beside)
    try:
        _write_unfinished(unfinished, content, mode, is_known=bool(beside))
        os.replace(unfinished, target)
    except BaseException as error:
        _unlink(unfinished)
        if isinstance(error, OSError):
            raise _told("write", path, error) from error
        raise
    point("store.written")


def create_exclusive(path: Path | str, content: bytes, mode: int = 0o600, *, beside: str = "") -> bool:
    """Make `path` with this content; give False, changing nothing, when anything has the name.

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
        raise _told("create", path, error) from error
    finally:
        _unlink(unfinished)
    point("store.written")
    return True


def read(path: Path | str) -> bytes | None:
    """Give the content of a regular file, None when there is nothing of this name."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _told("read", path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CniError(Code.STORE, f"could not read {path}: not a regular file", "remove it")
        return _read_all(fd, path)
    except OSError as error:
        raise _told("read", path, error) from error
    finally:
        os.close(fd)


def remove(path: Path | str) -> bool:
    """Remove a file; give False when there is nothing of this name."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _told("remove", path, error) from error
    point("store.removed")
    return True


def ensure_directory(path: Path, mode: int = 0o700) -> list[Path]:
    """Make the folder and those above it that are missing; give those made, the deepest one last.

    `mode` is subject to the umask. When one cannot be made, those made before it are removed. Raises
    CniError 106 for one that others than root and we can change, or that they have put a link in place of.
    """
    made: list[Path] = []
    if (found := _look(path)) is not None:
        _check_folder(path, found)
        return made
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
                raise _told("create", each, error) from error
            made.append(each)
            point("store.folder-made")
    except CniError:
        remove_directories(made)
        raise
    return made


def check_keepers(path: Path) -> None:
    """Raise CniError 106 for a folder that others than root and we can change; none there is fine."""
    if (found := _look(path)) is not None:
        _check_folder(path, found)


def _look(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        # Making it will tell why.
        return None


def _check_folder(path: Path, found: os.stat_result) -> None:
    """Refuse a folder, or a link to one, that is in others' hands: what we write would go where they like."""
    if stat.S_ISLNK(found.st_mode):
        _check_owner(path, found)
        with suppress(OSError):
            _check_folder(path, path.stat())
        return
    _check_owner(path, found)
    is_others_group = found.st_gid not in {0, os.getegid()}
    if found.st_mode & (stat.S_IWOTH | (stat.S_IWGRP if is_others_group else 0)):
        raise CniError(
            Code.STORE,
            f"could not use {path}: users other than its owner may write to it",
            f"chmod go-w {path}, when you know what is in it",
        )


def _check_link(path: Path) -> None:
    """Refuse a link that is in others' hands, as one that we would make folders behind."""
    found = _look(path)
    if found is not None and stat.S_ISLNK(found.st_mode):
        _check_owner(path, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise CniError(
            Code.STORE,
            f"could not use {path}: it belongs to user {found.st_uid}",
            "it must be root's or the caller's: remove it, or give it to root when you know what is in it",
        )


def check_writable(path: Path) -> None:
    """Raise CniError 106 when no file can be made in the folder, which need not exist; nothing is left."""
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    unfinished = _name_unfinished(str(existing / "probe"), "")
    try:
        _write_unfinished(unfinished, b"?", 0o600, is_known=False)
    except OSError as error:
        raise _told("write to", existing, error) from error
    finally:
        _unlink(unfinished)


def remove_directories(paths: list[Path]) -> None:
    """Remove these folders, the last one first, up to one that is in use or cannot be removed."""
    with suppress(OSError):
        for each in reversed(paths):
            each.rmdir()


def _name_unfinished(target: str, beside: str) -> str:
    folder = target.rpartition("/")[0]
    return f"{folder}/{beside or UNFINISHED_PREFIX + os.urandom(6).hex()}"


def _write_unfinished(name: str, content: bytes, mode: int, *, is_known: bool) -> None:
    """Make a synced file; what a crash has left of a known name goes."""
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
    # What is in the way of the file, a folder or a read-only file system, was told or will be.
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
    content = b""
    while chunk := os.read(fd, 1 << 16):
        content += chunk
        if len(content) > _LARGEST_BYTES:
            raise CniError(Code.STORE, f"could not read {path}: it is larger than {_LARGEST_BYTES >> 20} MiB")
    return content


def _told(doing: str, path: Path | str, error: OSError) -> CniError:
    return CniError(Code.STORE, f"could not {doing} {path}: {(error.strerror or str(error)).lower()}")

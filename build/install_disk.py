"""Locks, and files that are synced to disk before they get their names."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cni.state import executables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextmanager
def folders_locked(folders: Iterable[Path]) -> Iterator[None]:
    """Lock the folders that exist against installations of other prefixes."""
    with ExitStack() as stack:
        # Sorted, so that two installations cannot deadlock.
        for folder in sorted(set(folders)):
            if folder.is_dir():
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield


# Prefix of the names of unfinished files in folders that other programs use too.
UNFINISHED = executables.STAGE


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of a killed installation in a locked folder."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def copy(source: Path, target: Path) -> None:
    """Copy a file or link with mode and times: complete and synced to disk, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{UNFINISHED}{target.name}")
    try:
        shutil.copy2(source, new, follow_symlinks=False)
        if not new.is_symlink():
            with new.open("rb") as file:
                os.fsync(file.fileno())
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def locked(folder: Path, *, make: bool) -> Iterator[None]:
    """Hold the lock of a folder. If the folder is missing, create it or raise FileNotFoundError."""
    fd = _acquire(folder, make=make)
    try:
        yield
    finally:
        os.close(fd)


def _acquire(folder: Path, *, make: bool) -> int:
    while True:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            if make:
                continue
            raise
        fcntl.flock(fd, fcntl.LOCK_EX)
        # If the file was removed meanwhile, other processes lock a new file with this name.
        if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
            return fd
        os.close(fd)


def sync(folder: Path) -> None:
    """Sync the whole file system of a folder to disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # syncfs(2): one call for the thousand files of a tree, without other file systems.
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(fd)

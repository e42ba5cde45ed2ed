"""Enter other namespaces for a while, in a forked child without threads or in a thread of its own."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# unshare(2): the root and working directory, which threads share otherwise.
_OWN_DIRECTORY = 0x200
# proc(5): a thread's namespaces are below its own directory, /proc/self is that of the first thread.
_NAMESPACES = "/proc/thread-self/ns"


def unshare_directory() -> None:
    """Let this thread have a working directory of its own: without it no thread enters a mount namespace."""
    checked(ctypes.CDLL(None, use_errno=True).unshare(_OWN_DIRECTORY), "leave the shared directory")


def setns(fd: int) -> None:
    """Move this process to the namespace of an open file. Raise OSError if the kernel refuses."""
    # os.setns came with Python 3.12.
    checked(ctypes.CDLL(None, use_errno=True).setns(fd, 0), "enter a namespace")


def checked(result: int, action: str) -> None:
    """Raise OSError if a function of the C library that was to do `action` has failed."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"could not {action}: {os.strerror(number)}")


def write_sysctls(values: Mapping[str, str]) -> None:
    """Set sysctls of this namespace, by their paths below /proc/sys."""
    for path, value in values.items():
        Path("/proc/sys", path).write_text(value)


@contextmanager
def entered(path: str, kind: str = "net") -> Iterator[None]:
    """Enter the namespace at `path`, and return to the previous one when the context ends.

    `kind` is its name in namespaces(7): "net", or "mnt" for a thread after `unshare_directory`.
    """
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    back = os.open(f"{_NAMESPACES}/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there)
        yield
    finally:
        setns(back)
        os.close(there)
        os.close(back)

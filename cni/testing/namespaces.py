"""Enter another network namespace for a while, in a forked child without threads."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
def entered(path: str) -> Iterator[None]:
    """Enter the network namespace at `path`, and return to the previous one when the context ends."""
    back = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there)
        yield
    finally:
        setns(back)
        os.close(there)
        os.close(back)

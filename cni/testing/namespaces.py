"""Enter another network namespace for a while, in a forked child without threads."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def setns(fd: int) -> None:
    """Move this process to the namespace of an open file. Raise OSError if the kernel refuses."""
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0):
        raise OSError(ctypes.get_errno(), f"could not enter a namespace: {os.strerror(ctypes.get_errno())}")


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

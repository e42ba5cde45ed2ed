"""Kernel settings under /proc/sys, by keys like "net/ipv4/ip_forward".

Keys under net/ are those of the namespace that the calling thread is in. Slashes, not dots, part a
key, so that a link's name may have dots in it.

The kernel finds a link's settings among those of all namespaces of the machine, which takes milliseconds
where there are a thousand: the fewer files are opened here, the better.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cni.errors import CniError, Code
from cni.faults import point

_ROOT = "/proc/sys/"
_LARGEST_BYTES = 4096


def read(key: str) -> str | None:
    """Give the value without white space around it, None where the kernel has no such key."""
    try:
        return _read(key)
    except (OSError, ValueError):
        return None


def ensure(key: str, value: str) -> str | None:
    """Set a key unless it has the value already; give the old value if it was changed.

    Reading first makes a read-only /proc/sys harmless where the values are right. Raises CniError 100.
    """
    old = read(key)
    if old == value:
        return None
    try:
        _write(key, value)
    except OSError as error:
        raise CniError(
            Code.KERNEL,
            f"could not set sysctl {key} to {value}: {(error.strerror or str(error)).lower()}",
            "the kernel has no such setting here" if old is None else f"its value is {old}; set it by hand",
        ) from error
    return old


def set_if_possible(key: str, value: str) -> None:
    """Set a key that matters little: where it cannot be set, the kernel's own value does."""
    with suppress(OSError):
        _write(key, value)


def _read(key: str) -> str:
    fd = os.open(_ROOT + key, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LARGEST_BYTES).decode().strip()
    finally:
        os.close(fd)


def _write(key: str, value: str) -> None:
    fd = os.open(_ROOT + key, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
    point("sysctl.written")

"""Kernel settings under /proc/sys, by keys like "net/ipv4/ip_forward".

Keys under net/ are those of the namespace that the calling thread is in. Slashes, not dots, part a
key, so that a link's name may have dots in it.
"""

from __future__ import annotations

from pathlib import Path

from cni.errors import CniError, Code

_ROOT = Path("/proc/sys")


def read(key: str) -> str | None:
    """Give the value without white space around it, None where the kernel has no such key."""
    try:
        return (_ROOT / key).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def ensure(key: str, value: str) -> str | None:
    """Set a key unless it has the value already; give the old value if it was changed.

    Reading first makes a read-only /proc/sys harmless where the values are right. Raises CniError 100.
    """
    old = read(key)
    if old == value:
        return None
    try:
        (_ROOT / key).write_text(value, encoding="utf-8")
    except OSError as error:
        raise CniError(
            Code.KERNEL,
            f"could not set sysctl {key} to {value}: {(error.strerror or str(error)).lower()}",
            "the kernel has no such setting here" if old is None else f"its value is {old}; set it by hand",
        ) from error
    return old


def ensure_if_possible(key: str, value: str) -> None:
    """Set a key that matters little: where it cannot be set, the kernel's own value does."""
    try:
        ensure(key, value)
    except CniError:
        return

"""The record of bridges that ADD has made: on such a bridge nobody remembers a MAC address from before.

It is the content of the bridge's lock file: the index of the bridge.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.kernel.link import Link

LOCKS = Path("/run/pycni/bridges")


def lock_path(name: str) -> Path:
    """Return the lock file of a bridge."""
    return LOCKS / f"{name}.lock"


def mark(bridge: Link) -> None:
    """Record that ADD has just made the bridge. The caller holds the lock."""
    _write(bridge.name, str(bridge.index))


def is_marked(bridge: Link) -> bool:
    """Return whether ADD has made this very bridge."""
    try:
        return lock_path(bridge.name).read_text() == str(bridge.index)
    except (OSError, ValueError):
        return False


def forget(name: str) -> None:
    """Drop the record of a bridge: it is gone, or gets ports whose containers were on another one."""
    _write(name, "")


def _write(name: str, content: str) -> None:
    # Without the record ADD announces all addresses. The lock has made the file, and nobody replaces it.
    with suppress(OSError), lock_path(name).open("r+", encoding="ascii") as file:
        file.truncate()
        file.write(content)

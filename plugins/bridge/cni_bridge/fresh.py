"""The record of bridges that ADD has made: on such a bridge nobody remembers a MAC address from before.

It is a symbolic link beside the lock of the bridge, whose target is the bridge's index.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.kernel.link import Link

FOLDER = Path("/run/pycni/bridges")


def mark(bridge: Link) -> None:
    """Record that ADD has just made the bridge."""
    forget(bridge.name)
    # Without the record ADD announces all addresses.
    with suppress(OSError):
        _path(bridge.name).symlink_to(str(bridge.index))


def is_marked(bridge: Link) -> bool:
    """Return whether ADD has made this very bridge."""
    try:
        return str(_path(bridge.name).readlink()) == str(bridge.index)
    except OSError:
        return False


def forget(name: str) -> None:
    """Drop the record of a bridge: it is gone, or gets ports whose containers were on another one."""
    with suppress(OSError):
        _path(name).unlink()


def _path(name: str) -> Path:
    return FOLDER / f"{name}.fresh"

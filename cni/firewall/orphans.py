"""Wait for child processes whose parent was killed, before their attachment's rules are removed.

A plugin may be killed while its child changes the firewall, or waits for a lock of its own. The next DEL
finds no rules yet, and the child makes them afterwards. Therefore such children hold a lock of their
attachment, and a removal waits until the lock is free.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, ErrorList
from cni.firewall import owners
from cni.kernel import child
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import Owner

FOLDER = Path("/run/pycni")
_PREFIX = "children-"


@contextmanager
def bound(owner: Owner) -> Iterator[None]:
    """Let children that are started meanwhile hold the owner's lock. Raise CniError 11 or 106."""
    with ExitStack() as stack:
        held: list[int] = []

        def lock() -> int:
            # Most calls start no child.
            if not held:
                held.append(stack.enter_context(_held(_path(owner))))
            return held[0]

        with child.lending(lock):
            yield


@contextmanager
def _held(path: Path) -> Iterator[int]:
    made = files.ensure_directory(path.parent)
    try:
        with locked(path) as fd:
            try:
                yield fd
            finally:
                # All children have ended, or this process has been killed.
                files.remove(path)
    finally:
        # A signal may come when the lock has just been taken. A lock that another process holds remains.
        with suppress(CniError):
            _drop(path, 0)
        files.remove_directories(made)


def wait(owner: Owner) -> None:
    """Wait for the owner's children whose parent was killed. Raise CniError 11 if that takes 30 s."""
    _drop(_path(owner))


def list_invalid(network: str, valid: frozenset[str]) -> list[Path]:
    """Return the locks of a network's owners whose tags are not in `valid`."""
    found = FOLDER.glob(f"{_PREFIX}{owners.network_tag(network)}*")
    return sorted(each for each in found if each.name.removeprefix(_PREFIX) not in valid)


def collect(network: str, valid: frozenset[str]) -> list[str]:
    """Wait for the children of a network's owners whose tags are not in `valid`. Return the locks removed."""
    errors = ErrorList()
    found = list_invalid(network, valid)
    for each in found:
        errors.attempt(_drop, each)
    errors.raise_any()
    return [str(each) for each in found]


def _drop(path: Path, within_s: float = 30) -> None:
    """Remove a lock that no process holds. It need not exist."""
    if os.path.lexists(path):
        with locked(path, within_s):
            files.remove(path)


def _path(owner: Owner) -> Path:
    return FOLDER / f"{_PREFIX}{owners.tag(owner)}"

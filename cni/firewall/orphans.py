"""Children that go on when the process that has started them is killed: whoever cleans up waits for them.

A program that changes the firewall may be at it, or wait for a lock of its own, while the plugin that has
started it is killed. The DEL that comes next would find nothing yet, and the rules would come after it. So
such children hold a lock that is their attachment's, and a removal waits until it is free.
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
    """Let the children that are started meanwhile be known as the owner's. Raises CniError 11 or 106."""
    with ExitStack() as stack:
        held: list[int] = []

        def lock() -> int:
            # Most calls start none.
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
                # All children have ended, or else we have been killed.
                files.remove(path)
    finally:
        # Stopped when the lock had just been taken. One that another holds is not ours.
        with suppress(CniError):
            _drop(path, 0)
        files.remove_directories(made)


def wait(owner: Owner) -> None:
    """Wait for the owner's children whose parent was killed. Raises CniError 11 when that takes 30 s."""
    _drop(_path(owner))


def list_invalid(network: str, valid: frozenset[str]) -> list[Path]:
    """Give the locks of a network's owners whose tags are not in `valid`."""
    found = FOLDER.glob(f"{_PREFIX}{owners.network_tag(network)}*")
    return sorted(each for each in found if each.name.removeprefix(_PREFIX) not in valid)


def collect(network: str, valid: frozenset[str]) -> list[str]:
    """Wait for the children of a network's owners whose tags are not in `valid`; name the locks removed."""
    errors = ErrorList()
    found = list_invalid(network, valid)
    for each in found:
        errors.attempt(_drop, each)
    errors.raise_any()
    return [str(each) for each in found]


def _drop(path: Path, within_s: float = 30) -> None:
    """Remove a lock that nobody holds, which may be gone already."""
    if os.path.lexists(path):
        with locked(path, within_s):
            files.remove(path)


def _path(owner: Owner) -> Path:
    return FOLDER / f"{_PREFIX}{owners.tag(owner)}"

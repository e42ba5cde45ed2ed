"""Damaged files: any content, a cut text, a folder, a FIFO, a dangling link."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.fuzz import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDER, FIFO, NOWHERE, LOOP = "folder", "fifo", "nowhere", "loop"
KINDS = st.sampled_from([FOLDER, FIFO, NOWHERE, LOOP])

# What stands at a path: the content of a file, or what else it is.
Plant = bytes | str


def contents(right: st.SearchStrategy[bytes]) -> st.SearchStrategy[Plant]:
    """Return what should be in a file, most times, or parts of it, anything else, or no file at all."""
    cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], right, st.integers(0, 300))
    return st.one_of(right, right, cut, st.binary(max_size=40), KINDS)


def documents(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Plant]:
    """Return the same for a file of JSON; members may be of any kind."""
    objects = st.one_of(inputs.broken(right), inputs.ANY_JSON)
    return contents(objects.map(lambda value: json.dumps(value).encode()))


def plant(path: Path, what: Plant) -> None:
    """Put it there, in the place of what was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    if isinstance(what, bytes):
        path.write_bytes(what)
    elif what == FOLDER:
        path.mkdir()
    elif what == FIFO:
        os.mkfifo(path)
    else:
        path.symlink_to(path if what == LOOP else "/nowhere/at/all")


def remove(path: Path) -> None:
    """Delete the file or directory, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


@contextmanager
def planted(folder: Path, files: Mapping[str, Plant]) -> Iterator[None]:
    """Make a folder with these files, and remove it afterwards."""
    remove(folder)
    for name, what in files.items():
        plant(folder / name, what)
    try:
        yield
    finally:
        remove(folder)

"""Plugin executables in a BINDIR: ours, and those of other suites that had the names before."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cni import executables
from install_tree import files, owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from install_tree import Prefix


def ensure_plugins(prefix: Prefix, bindir: Path, names: Sequence[str], program: bytes) -> Iterator[str]:
    """Put the launcher under each name, and take away names of ours that are no plugins any more.

    `bindir` is the folder as runtimes call it. Yields lines to tell.
    """
    folder, saved = prefix.written(bindir), _saved(prefix, bindir)
    prefix.note("bindirs", bindir)
    for path in (folder / name for name in names):
        if path.exists() and not owner(path):
            saved.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, saved / path.name)
            yield f"{bindir / path.name}: replaced, the one that was there is kept in {saved}"
    executables.put(folder, names, program)
    yield from remove_plugins(prefix, bindir, keep=names)


def remove_plugins(prefix: Prefix, bindir: Path, keep: Sequence[str] = ()) -> Iterator[str]:
    """Remove the executables of this prefix; what they had replaced comes back. Yields lines to tell."""
    for path in files(prefix.written(bindir)):
        if path.name in keep or not owner(path).startswith(f"{prefix.shown_path}/"):
            continue
        saved = _saved(prefix, bindir) / path.name
        if saved.exists():
            new = path.with_name(f".{path.name}-before")
            shutil.copy2(saved, new)
            new.rename(path)
            saved.unlink()
        else:
            path.unlink()
        yield f"{bindir / path.name}: {'what was there before' if path.exists() else 'removed'}"


def _saved(prefix: Prefix, bindir: Path) -> Path:
    return prefix.path / "replaced" / str(bindir).lstrip("/")

"""PREFIX of an installation: trees PREFIX/<version>-<hash>/, each a bundle as it was built.

A tree is made beside its place, then renamed, and never changed afterwards: a plugin or a server that runs
goes on finding the files it was started with, whatever is installed meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni import executables

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLACED = ".replaced"
_NEW = ".new-"
_MAX_LAUNCHER_BYTES = 4 << 20


class InstallError(Exception):
    """An installation that could not be made, in words for the person who asked for it."""


class Prefix:
    """The folder of an installation: `path` to write to, `shown_path` as it is once DESTDIR is stripped."""

    def __init__(self, shown_path: Path, destdir: str = "") -> None:
        self.shown_path = shown_path
        self.path = Path(f"{destdir}{shown_path}") if destdir else shown_path
        self._destdir = destdir
        self._notes = self.path / "installed.json"

    def written(self, shown: Path) -> Path:
        """Give where a path of the installed system is written to."""
        return Path(f"{self._destdir}{shown}") if self._destdir else shown

    def shown(self, path: Path) -> Path:
        """Give what a path below `path` is called once it is used."""
        return self.shown_path / path.relative_to(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let other installations to here wait."""
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def noted(self, what: str) -> list[Path]:
        """Give the folders or links outside of here that were noted."""
        notes = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        return [Path(each) for each in notes.get(what, [])]

    def note(self, what: str, path: Path) -> None:
        """Remember a folder or link outside of here for `uninstall`; twice is fine."""
        notes = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        notes[what] = sorted({*notes.get(what, []), str(path)})
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps(notes, indent=1) + "\n")
        new.rename(self._notes)

    def ensure_tree(self, bundle: Path) -> Path:
        """Copy the bundle to its place, if it is not there, and give that."""
        tree = self.path / (bundle / "build").read_text()
        if not tree.exists():
            stage = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.path))
            try:
                shutil.copytree(bundle, stage, dirs_exist_ok=True)
                stage.chmod(0o755)
                stage.rename(tree)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        (tree / _REPLACED).unlink(missing_ok=True)
        return tree

    def trees(self) -> list[Path]:
        """Give the trees that are here."""
        return sorted(path.parent for path in self.path.glob("*/build"))

    def prune(self, current: Path) -> list[Path]:
        """Remove and give the trees that an earlier installation replaced and that nothing runs from."""
        for stage in self.path.glob(f"{_NEW}*"):
            shutil.rmtree(stage)
        removed = []
        for tree in self.trees():
            if tree == current or self._has_executables(tree):
                continue
            # Not at once: a launcher of it may have been started and not have got to its program yet.
            if (tree / _REPLACED).exists() and not is_running(tree, self.shown(tree)):
                shutil.rmtree(tree)
                removed.append(self.shown(tree))
            else:
                (tree / _REPLACED).touch()
        return removed

    def _has_executables(self, tree: Path) -> bool:
        return any(
            owner(path) == str(self.shown(tree))
            for bindir in self.noted("bindirs")
            for path in files(self.written(bindir))
        )

    def remove(self) -> None:
        """Remove everything of ours that is here, and the folder if nothing else is in it."""
        for folder in [*self.trees(), self.path / "bin", self.path / "replaced"]:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self._notes, self.path / "lock"):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


def files(folder: Path) -> list[Path]:
    """Give the regular files of a folder, none when there is no such folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def owner(path: Path) -> str:
    """Give the tree that a file is a launcher of, "" for other files."""
    if path.stat().st_size > _MAX_LAUNCHER_BYTES:
        return ""
    return executables.launched_tree(path.read_bytes())


def is_running(tree: Path, shown: Path) -> bool:
    """Tell whether a process runs the tree's program or interpreter, or is a launcher that may do so yet."""
    programs = [each.stat() for each in (tree / "pycni", tree / "bin/python3") if each.exists()]
    for process in Path("/proc").glob("[0-9]*/exe"):
        # A process may end while it is looked at, and kernel threads have no program.
        with suppress(OSError):
            found = process.stat()
            if any(os.path.samestat(found, each) for each in programs) or owner(process) == str(shown):
                return True
    return False

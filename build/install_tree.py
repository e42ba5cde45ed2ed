"""PREFIX of an installation: trees PREFIX/<version>-<hash>/, each a bundle as it was built.

A tree is made beside its place, then renamed, and never changed afterwards: a plugin or a server that runs
goes on finding the files it was started with, whatever is installed meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import install_disk
from cni import executables

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLACED = ".replaced"
_NEW = ".pycni-new-"
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
    def locked(self, *, make: bool) -> Iterator[None]:
        """Let other installations to here wait. Raises InstallError where none is and none is to be made."""
        if not make and not self._is_used():
            raise InstallError(f"nothing is installed in {self.path}")
        with install_disk.locked(self.path, make=make):
            yield

    def _is_used(self) -> bool:
        return self._notes.exists() or bool(self.trees())

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
                # Else a power cut might leave the folder, by which it is known, with empty files in it.
                install_disk.sync(stage)
                stage.rename(tree)
                install_disk.sync(self.path)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        (tree / _REPLACED).unlink(missing_ok=True)
        return tree

    def trees(self) -> list[Path]:
        """Give the trees that are here, and no folders of others: PREFIX may be any folder."""
        found = [path for path in self.path.glob("*/build") if path.is_file()]
        return sorted(path.parent for path in found if path.read_bytes() == os.fsencode(path.parent.name))

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
                _remove_tree(tree)
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
        """Remove all of ours that is here, and a folder if nothing else is in it. Raises OSError."""
        for tree in self.trees():
            _remove_tree(tree)
        if (self.path / "replaced").exists():
            shutil.rmtree(self.path / "replaced")
        for file in (self.path / "bin/pycni", self._notes, self.path / "lock"):
            file.unlink(missing_ok=True)
        for folder in (self.path / "bin", self.path):
            with suppress(OSError):
                folder.rmdir()


def _remove_tree(tree: Path) -> None:
    """Remove a tree, last the file by which it is known: what fails half way can be done again."""
    for path in tree.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "build":
            path.unlink()
    (tree / "build").unlink()
    tree.rmdir()


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

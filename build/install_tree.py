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
from cni.state import executables

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
        self.replaced = self.path / "replaced"
        self._destdir = destdir
        self._notes = self.path / "installed.json"

    @property
    def has_destdir(self) -> bool:
        """Return whether this is for another machine, or another root of this one."""
        return bool(self._destdir)

    def at(self, shown_path: Path) -> Prefix:
        """Return another installation below the same DESTDIR."""
        return Prefix(shown_path, self._destdir)

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
        return self._notes.exists() or bool(self.trees()) or bool(self._stages())

    def noted(self, what: str) -> list[Path]:
        """Return the folders or links outside of here that were noted."""
        # A folder above is noted by its relative path, so that a copy of it knows itself.
        return [Path(os.path.normpath(self.shown_path / each)) for each in self._read_notes().get(what, [])]

    def note(self, what: str, path: Path) -> None:
        """Remember a folder or link outside of here for `uninstall`; twice is fine."""
        notes = self._read_notes()
        is_above = self.shown_path.is_relative_to(path)
        text = os.path.relpath(path, self.shown_path) if is_above else str(path)
        notes[what] = sorted({*notes.get(what, []), text})
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps(notes, indent=1) + "\n")
        new.rename(self._notes)

    def _read_notes(self) -> dict[str, list[str]]:
        notes: dict[str, list[str]] = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        return notes

    def owns(self, file: Path, folder: Path) -> bool:
        """Return whether a file is a launcher of ours; `folder` is its folder as runtimes call it."""
        return any(tree.is_relative_to(self.shown_path) for tree in launched_trees(file, folder))

    def has_tree(self, build: str) -> bool:
        """Return whether the tree of a build is here."""
        return (self.path / build).exists()

    def plugin_names(self) -> set[str]:
        """Return the names of the plugins of all trees that are here."""
        tables = [tree / "plugins.json" for tree in self.trees()]
        return {name for table in tables if table.is_file() for name in json.loads(table.read_text())}

    def ensure_tree(self, bundle: Path) -> Path:
        """Copy the bundle to its place, if it is not there, and return that."""
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

    def _stages(self) -> list[Path]:
        """Return what installations have left that were killed while they copied a bundle."""
        return list(self.path.glob(f"{_NEW}*"))

    def _remove_stages(self) -> None:
        for stage in self._stages():
            shutil.rmtree(stage)

    def trees(self) -> list[Path]:
        """Give the trees that are here, and no folders of others: PREFIX may be any folder."""
        found = [path for path in self.path.glob("*/build") if path.is_file()]
        return sorted(path.parent for path in found if path.read_bytes() == os.fsencode(path.parent.name))

    def prune(self, current: Path) -> list[Path]:
        """Remove and give the trees that an earlier installation replaced and that nothing runs from."""
        self._remove_stages()
        removed = []
        for tree in self.trees():
            if tree == current or self._has_executables(tree):
                continue
            # Not at once: a launcher of it may have been started and not have got to its program yet.
            if (tree / _REPLACED).exists() and not is_running(tree, self.shown(tree)):
                self.remove_tree(tree)
                removed.append(self.shown(tree))
            else:
                (tree / _REPLACED).touch()
        return removed

    def _has_executables(self, tree: Path) -> bool:
        return any(
            self.shown(tree) in launched_trees(path, bindir)
            for bindir in self.noted("bindirs")
            for path in files(self.written(bindir))
        )

    def remove_tree(self, tree: Path) -> None:
        """Remove a tree, last the file by which it is known: an interrupted removal can be repeated."""
        for path in tree.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "build":
                path.unlink()
        (tree / "build").unlink()
        tree.rmdir()

    def remove(self) -> None:
        """Remove all of ours that is here but what `replaced` holds, and a folder if nothing else is in it.

        Raises OSError.
        """
        self._remove_stages()
        for tree in self.trees():
            self.remove_tree(tree)
        for unfinished in self.replaced.rglob(".*"):
            unfinished.unlink()
        remove_empty(self.replaced)
        for file in (self.path / "bin/pycni", self._notes, self.path / "lock"):
            file.unlink(missing_ok=True)
        for folder in (self.path / "bin", self.path):
            with suppress(OSError):
                folder.rmdir()


def remove_empty(folder: Path) -> None:
    """Remove a folder and those in it as far as there is no file in them."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()


def files(folder: Path) -> list[Path]:
    """Return the regular files of a folder, none when there is no such folder."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def is_launcher(file: Path) -> bool:
    """Return whether a file is a launcher of any installation."""
    return bool(executables.launched_tree(_program(file)))


def launched_trees(file: Path, folder: Path) -> list[Path]:
    """Return the trees that a launcher may execute, the first one first; none for another file.

    `folder` is the file's folder as runtimes call it.
    """
    program = _program(file)
    tree, below = executables.launched_tree(program), executables.launched_below(program)
    return [*([folder / below] if below else []), *([Path(tree)] if tree else [])]


def _program(file: Path) -> bytes:
    return file.read_bytes() if file.stat().st_size <= _MAX_LAUNCHER_BYTES else b""


def is_running(tree: Path, shown: Path) -> bool:
    """Return whether a process runs the tree's program or interpreter, or is a launcher that may do so."""
    programs = [each.stat() for each in (tree / "pycni", tree / "bin/python3") if each.exists()]
    for process in Path("/proc").glob("[0-9]*/exe"):
        # A process may end while it is looked at, and kernel threads have no program.
        with suppress(OSError):
            found = process.stat()
            if any(os.path.samestat(found, each) for each in programs):
                return True
            if shown in launched_trees(process, process.readlink().parent):
                return True
    return False

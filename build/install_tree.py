"""PREFIX of an installation: trees PREFIX/<version>-<hash>/, each a copy of a bundle.

A tree is copied under a temporary name, then renamed, and never changed afterwards: a running plugin or
server keeps its files, even if another version is installed meanwhile.
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
    """The installation failed; the message is for the user who installs."""


class Prefix:
    """The folder of an installation: `path` to write to, `shown_path` without DESTDIR."""

    def __init__(self, shown_path: Path, destdir: str = "") -> None:
        self.shown_path = shown_path
        self.path = Path(f"{destdir}{shown_path}") if destdir else shown_path
        self.replaced = self.path / "replaced"
        self._destdir = destdir
        self._record_file = self.path / "installed.json"

    @property
    def has_destdir(self) -> bool:
        """Return whether the installation is for another machine or another root folder."""
        return bool(self._destdir)

    def at(self, shown_path: Path) -> Prefix:
        """Return another installation below the same DESTDIR."""
        return Prefix(shown_path, self._destdir)

    def written(self, shown: Path) -> Path:
        """Return a path of the installed system with DESTDIR before it."""
        return Path(f"{self._destdir}{shown}") if self._destdir else shown

    def shown(self, path: Path) -> Path:
        """Return a path below `path` without DESTDIR."""
        return self.shown_path / path.relative_to(self.path)

    @contextmanager
    def locked(self, *, make: bool) -> Iterator[None]:
        """Lock the prefix. Raises InstallError if nothing is installed there, unless `make`."""
        if not make and not self._is_used():
            raise InstallError(f"nothing is installed in {self.path}")
        with install_disk.locked(self.path, make=make):
            yield

    def _is_used(self) -> bool:
        return self._record_file.exists() or bool(self.trees()) or bool(self._stages())

    def recorded(self, kind: str) -> list[Path]:
        """Return the recorded paths outside the prefix: `kind` is "bindirs" or "links"."""
        # A folder above the prefix is recorded by its relative path, so that a copy of it is still right.
        return [Path(os.path.normpath(self.shown_path / each)) for each in self._read_record().get(kind, [])]

    def record(self, kind: str, path: Path) -> None:
        """Record a folder or link outside the prefix for `uninstall`; recording it twice is fine."""
        record = self._read_record()
        is_above = self.shown_path.is_relative_to(path)
        text = os.path.relpath(path, self.shown_path) if is_above else str(path)
        record[kind] = sorted({*record.get(kind, []), text})
        new = self._record_file.with_suffix(".new")
        new.write_text(json.dumps(record, indent=1) + "\n")
        new.rename(self._record_file)

    def _read_record(self) -> dict[str, list[str]]:
        if not self._record_file.exists():
            return {}
        record: dict[str, list[str]] = json.loads(self._record_file.read_text())
        return record

    def owns(self, file: Path, folder: Path) -> bool:
        """Return whether a file is a launcher of this prefix; `folder` is its folder without DESTDIR."""
        return any(tree.is_relative_to(self.shown_path) for tree in launched_trees(file, folder))

    def has_tree(self, build: str) -> bool:
        """Return whether the tree of a build exists."""
        return (self.path / build).exists()

    def plugin_names(self) -> set[str]:
        """Return the names of the plugins of all trees."""
        tables = [tree / "plugins.json" for tree in self.trees()]
        return {name for table in tables if table.is_file() for name in json.loads(table.read_text())}

    def ensure_tree(self, bundle: Path) -> Path:
        """Copy the bundle to its tree, unless that exists. Return the tree."""
        tree = self.path / (bundle / "build").read_text()
        if not tree.exists():
            stage = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.path))
            try:
                shutil.copytree(bundle, stage, dirs_exist_ok=True)
                stage.chmod(0o755)
                # Without the sync, a power cut could leave a complete-looking tree with empty files.
                install_disk.sync(stage)
                stage.rename(tree)
                install_disk.sync(self.path)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        (tree / _REPLACED).unlink(missing_ok=True)
        return tree

    def _stages(self) -> list[Path]:
        """Return the unfinished trees of killed installations."""
        return list(self.path.glob(f"{_NEW}*"))

    def _remove_stages(self) -> None:
        for stage in self._stages():
            shutil.rmtree(stage)

    def trees(self) -> list[Path]:
        """Return the trees, without other folders: PREFIX may have any contents."""
        builds = [path for path in self.path.glob("*/build") if path.is_file()]
        return sorted(path.parent for path in builds if path.read_bytes() == os.fsencode(path.parent.name))

    def prune(self, current: Path) -> list[Path]:
        """Remove the trees that an earlier installation replaced and that no process uses. Return them."""
        self._remove_stages()
        removed = []
        for tree in self.trees():
            if tree == current or self._has_executables(tree):
                continue
            # Only at the next installation: a launcher may be running that has not executed its program yet.
            if (tree / _REPLACED).exists() and not is_running(tree, self.shown(tree)):
                self.remove_tree(tree)
                removed.append(self.shown(tree))
            else:
                (tree / _REPLACED).touch()
        return removed

    def _has_executables(self, tree: Path) -> bool:
        return any(
            self.shown(tree) in launched_trees(path, bindir)
            for bindir in self.recorded("bindirs")
            for path in files(self.written(bindir))
        )

    def remove_tree(self, tree: Path) -> None:
        """Remove a tree, the file `build` last, so that an interrupted removal can be repeated."""
        for path in tree.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "build":
                path.unlink()
        (tree / "build").unlink()
        tree.rmdir()

    def remove(self) -> None:
        """Remove the installation's files except saved originals, and empty folders. Raises OSError."""
        self._remove_stages()
        for tree in self.trees():
            self.remove_tree(tree)
        for unfinished in self.replaced.rglob(".*"):
            unfinished.unlink()
        remove_empty(self.replaced)
        for file in (self.path / "bin/pycni", self._record_file, self.path / "lock"):
            file.unlink(missing_ok=True)
        for folder in (self.path / "bin", self.path):
            with suppress(OSError):
                folder.rmdir()


def remove_empty(folder: Path) -> None:
    """Remove a folder and its subfolders if they are empty."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()


def files(folder: Path) -> list[Path]:
    """Return the regular files of a folder; none if the folder does not exist."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def is_launcher(file: Path) -> bool:
    """Return whether a file is a launcher of any installation."""
    return bool(executables.launched_tree(_program(file)))


def launched_trees(file: Path, folder: Path) -> list[Path]:
    """Return the trees that a launcher may execute, in its order; none for another file.

    `folder` is the file's folder without DESTDIR.
    """
    program = _program(file)
    tree, below = executables.launched_tree(program), executables.launched_below(program)
    return [*([folder / below] if below else []), *([Path(tree)] if tree else [])]


def _program(file: Path) -> bytes:
    return file.read_bytes() if file.stat().st_size <= _MAX_LAUNCHER_BYTES else b""


def is_running(tree: Path, shown: Path) -> bool:
    """Return whether a process runs the tree's program or interpreter, or is a launcher of the tree."""
    programs = [each.stat() for each in (tree / "pycni", tree / "bin/python3") if each.exists()]
    for process in Path("/proc").glob("[0-9]*/exe"):
        # A process may end meanwhile, and kernel threads have no program.
        with suppress(OSError):
            running = process.stat()
            if any(os.path.samestat(running, each) for each in programs):
                return True
            if shown in launched_trees(process, process.readlink().parent):
                return True
    return False

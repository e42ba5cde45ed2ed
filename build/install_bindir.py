"""Plugin executables in a BINDIR: this suite's, and the originals of other suites with the same names.

An original is kept in PREFIX/replaced/BINDIR until it is restored; nothing here deletes one before that. If
another installation takes the BINDIR over, it gets the originals too.
"""

from __future__ import annotations

import filecmp
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import install_disk
from cni.state import executables
from install_tree import InstallError, Prefix, files, is_launcher, launched_trees

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

# Folder below `replaced` for originals that a later original with the same name has superseded.
_OLDER = "older"


class Bindir:
    """One folder of plugins of an installation; `shown` is its path without DESTDIR."""

    def __init__(self, prefix: Prefix, shown: Path) -> None:
        self.shown = shown
        self.path = prefix.written(shown)
        self._prefix = prefix
        self.saved = prefix.replaced / str(shown).lstrip("/")

    @contextmanager
    def staged(self, names: Sequence[str], program: bytes) -> Iterator[Path]:
        """Yield a folder beside the plugins with a launcher for each name, to be tested before `switch`."""
        install_disk.remove_unfinished(self.path)
        with executables.staged(self.path, names, program) as launchers:
            yield launchers[0].parent

    def save(self, names: Sequence[str]) -> Iterator[str]:
        """Save the originals that `switch` replaces. Yield lines to print."""
        for name in names:
            path, saved = self.path / name, self.saved / name
            if _is_there(path) and not _is_plain_launcher(path):
                if _is_there(saved) and not _is_equal(path, saved):
                    _rename_free(saved, self._prefix.replaced / _OLDER / str(self.shown).lstrip("/") / name)
                install_disk.copy(path, saved)
                yield f"{self.shown / name}: replaced; the original is saved in {self.saved}"
            elif (other_saved := self._saved_by_another(name)) is not None and not _is_there(saved):
                install_disk.copy(other_saved, saved)
                yield f"{self.shown / name}: its original, from {other_saved}, is saved in {self.saved}"

    def switch(self, stage: Path, names: Sequence[str]) -> None:
        """Rename each staged launcher into place. If one fails, restore the previous files."""
        before = stage / "before"
        before.mkdir()
        done: list[str] = []
        try:
            for name in names:
                if _is_there(self.path / name):
                    shutil.copy2(self.path / name, before / name, follow_symlinks=False)
            taken_over = [each for name in names if (each := self._saved_by_another(name)) is not None]
            for name in names:
                done.append(name)
                (stage / name).rename(self.path / name)
        except BaseException:
            for name in done:
                if _is_there(before / name):
                    (before / name).rename(self.path / name)
                elif not _is_there(stage / name):
                    (self.path / name).unlink()
            raise
        install_disk.sync_folder(self.path)
        # The originals now belong to this installation: the other one must not restore them.
        for each in taken_over:
            if _is_there(self.saved / each.name):
                each.unlink()

    def _saved_by_another(self, name: str) -> Path | None:
        """Return the original that another installation, whose launcher is in place, has saved."""
        other = self.other_prefix(name)
        saved = other.replaced / str(self.shown).lstrip("/") / name if other else None
        return saved if saved and _is_there(saved) else None

    def other_prefix(self, name: str) -> Prefix | None:
        """Return the other installation whose launcher has this name; None if there is none."""
        path = self.path / name
        if not path.is_file() or self._prefix.owns(path, self.shown):
            return None
        for tree in launched_trees(path, self.shown):
            other = self._prefix.at(tree.parent)
            if other.trees():
                return other
        return None

    def list_aliases(self, known: Collection[str]) -> list[str]:
        """Return the names, without those in `known`, under which a user has copied a launcher."""
        copies = [path for path in files(self.path) if path.name not in known and not path.is_symlink()]
        return [path.name for path in copies if self._prefix.owns(path, self.shown)]

    def list_own(self) -> list[str]:
        """Return the names of this installation's executables, links to them included."""
        return [path.name for path in files(self.path) if self._prefix.owns(path, self.shown)]

    def executes(self, tree: Path) -> bool:
        """Return whether an executable in this folder is a launcher of a tree."""
        return any(tree in launched_trees(path, self.shown) for path in files(self.path))

    def list_links(self, but: Collection[str]) -> list[str]:
        """Return the names of a user's links to this installation's executables, without those in `but`."""
        return [name for name in self.list_own() if (self.path / name).is_symlink() and name not in but]

    def remove(self, keep: Collection[str] = ()) -> Iterator[str]:
        """Remove this installation's executables, and restore all originals. Yield lines to print."""
        saved_names = [path.name for path in _list_files(self.saved)]
        if not keep:
            install_disk.remove_unfinished(self.path)
        for name in sorted({*self.list_own(), *saved_names} - set(keep)):
            path, saved = self.path / name, self.saved / name
            if not _is_there(saved):
                path.unlink()
                yield f"{self.shown / name}: removed"
            elif other := self.other_prefix(name):
                target = other.replaced / self.saved.relative_to(self._prefix.replaced) / name
                if not _is_there(target):
                    install_disk.copy(saved, target)
                saved.unlink()
                yield f"{self.shown / name}: belongs to {other.shown_path}, which has its original now"
            elif not _is_there(path) or _is_plain_launcher(path) or _is_equal(saved, path):
                if not _is_there(path) or not _is_equal(saved, path):
                    install_disk.copy(saved, path)
                saved.unlink()
                yield f"{self.shown / name}: the original is restored"


def refuse_lost_originals(prefix: Prefix) -> None:
    """Raise InstallError if an original cannot be restored and would be lost with the installation."""
    lost = []
    for saved in _list_saved(prefix):
        shown = Path("/") / saved.relative_to(prefix.replaced)
        path, bindir = prefix.written(shown), Bindir(prefix, shown.parent)
        if not path.parent.is_dir():
            lost.append(f"{saved}: there is no {shown.parent} to restore it to")
        elif not _is_there(path) or _is_equal(saved, path):
            continue
        elif not _is_plain_launcher(path):
            lost.append(f"{saved}: another program has replaced {shown} since")
        elif other := bindir.other_prefix(path.name):
            target = other.replaced / saved.relative_to(prefix.replaced)
            if _is_there(target) and not _is_equal(saved, target):
                lost.append(f"{saved}: {other.shown_path} keeps another original of {shown}")
    if lost:
        raise InstallError(
            "nothing was removed, as these originals could not be restored:\n"
            + "".join(f"  {line}\n" for line in lost)
            + "Move each one to where it belongs, or delete it. Then uninstall again."
        )


def bindirs(prefix: Prefix) -> list[Bindir]:
    """Return the folders that may have executables of an installation, or whose originals it has saved."""
    saved = {Path("/") / each.parent.relative_to(prefix.replaced) for each in _list_saved(prefix)}
    return [Bindir(prefix, shown) for shown in sorted({*prefix.recorded("bindirs"), *saved})]


def list_older(prefix: Prefix) -> list[Path]:
    """Return the superseded originals, which are never deleted."""
    return sorted(path for path in (prefix.replaced / _OLDER).rglob("*") if not path.is_dir())


def _list_saved(prefix: Prefix) -> list[Path]:
    older = prefix.replaced / _OLDER
    paths = [path for folder in prefix.replaced.rglob("*") if folder.is_dir() for path in _list_files(folder)]
    return sorted(path for path in paths if not path.is_relative_to(older))


def _list_files(folder: Path) -> list[Path]:
    """Return the originals in a folder, without unfinished copies, whose names start with a dot."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_symlink() or (path.is_file() and path.name[0] != ".")]


def _is_there(path: Path) -> bool:
    """Return whether a path exists, a dangling link included."""
    return path.is_symlink() or path.exists()


def _is_plain_launcher(path: Path) -> bool:
    """Return whether a file is a launcher itself. A link is the user's own, wherever it leads."""
    return not path.is_symlink() and path.is_file() and is_launcher(path)


def _is_equal(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return filecmp.cmp(one, other, shallow=False)


def _rename_free(path: Path, target: Path) -> None:
    """Rename a file to the first unused name: `target`, `target`.1 and so on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    number, free = 0, target
    while _is_there(free):
        number += 1
        free = Path(f"{target}.{number}")
    path.rename(free)

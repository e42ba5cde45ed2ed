"""Checks before an installation changes anything."""

from __future__ import annotations

import filecmp
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from install_tree import InstallError, files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from install_tree import Prefix

# The size of a launcher's path field, without the program's name.
_MAX_PATH_BYTES = 200
# Space for folders and partly used blocks.
_SPARE_BYTES = 2 << 20


class Needs(NamedTuple):
    """Bytes and number of files that will be written to one folder."""

    folder: Path
    size: int
    number: int


def check_paths(named: dict[str, Path]) -> None:
    """Raise InstallError if a folder in an option is invalid."""
    for name, path in named.items():
        text = str(path)
        if not path.is_absolute():
            shown = "" if text == "." else text
            raise InstallError(f'{name} is "{shown}": it must be an absolute path')
        if re.search(r"[\x00-\x1f\x7f:]", text):
            raise InstallError(f"{name} is {text!r}: a colon or a control character cannot be in it")
        if path == Path("/") and name != "DESTDIR":
            raise InstallError(f"{name} is /: choose a folder of its own")
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise InstallError(f"{name} has more than {_MAX_PATH_BYTES} bytes: choose a shorter path")


def check_writable(folders: Iterable[Path]) -> None:
    """Raise InstallError if a folder cannot be created or written to."""
    for folder in folders:
        above = _existing(folder)
        if not above.is_dir():
            raise InstallError(f"{above} is not a folder")
        if os.statvfs(above).f_flag & os.ST_RDONLY:
            raise InstallError(f"{above} is on a file system that is mounted read-only")
        if not os.access(above, os.W_OK | os.X_OK):
            remedy = "run as root" if os.geteuid() else "another program, or an attribute of it, protects it"
            raise InstallError(f"{above} cannot be written to: {remedy}")


def check_executable(folders: Iterable[Path]) -> None:
    """Raise InstallError if no program can be executed from a folder."""
    for folder in folders:
        above = _existing(folder)
        if os.statvfs(above).f_flag & os.ST_NOEXEC:
            raise InstallError(
                f"no program runs from {folder}: its file system is mounted noexec. "
                "Choose another folder, or mount it with exec"
            )


def check_names(bindir: Path, names: Iterable[str]) -> None:
    """Raise InstallError if a folder has the name of a plugin."""
    for name in names:
        if (bindir / name).is_dir():
            raise InstallError(f"{bindir / name} is a folder: remove it, a plugin has its name")


def check_space(needs: Sequence[Needs]) -> None:
    """Raise InstallError if a file system has too little free space."""
    by_device: dict[int, list[Needs]] = {}
    for each in needs:
        by_device.setdefault(_existing(each.folder).stat().st_dev, []).append(each)
    for group in by_device.values():
        folder = _existing(group[0].folder)
        file_system = os.statvfs(folder)
        size = sum(each.size for each in group) + _SPARE_BYTES
        if size > file_system.f_bavail * file_system.f_frsize:
            free = file_system.f_bavail * file_system.f_frsize >> 20
            raise InstallError(f"{folder} has {free} MiB of free space, {(size >> 20) + 1} MiB are needed")
        number = sum(each.number for each in group)
        # Some file systems do not count files.
        if file_system.f_files and number > file_system.f_favail:
            raise InstallError(f"{folder} has room for {file_system.f_favail} files, {number} are needed")


def needs(prefix: Prefix, bundle: Path, bindir: Path, names: Sequence[str]) -> list[Needs]:
    """Return the needs of an installation; `bindir` includes DESTDIR."""
    launcher = (bundle / "launcher").stat().st_size if (bundle / "launcher").exists() else 0
    listed = [Needs(bindir, launcher * len(names), len(names))]
    if not prefix.has_tree((bundle / "build").read_text()):
        paths = [path for path in bundle.rglob("*") if path.is_file()]
        listed.append(Needs(prefix.path, sum(path.stat().st_size for path in paths), 2 * len(paths)))
    originals = [path for path in files(bindir) if path.name in names]
    listed.append(Needs(prefix.path, sum(path.stat().st_size for path in originals), len(originals)))
    return listed


def check_networks(networks: Path, confdir: Path, names: Iterable[str]) -> None:
    """Raise InstallError if a network to copy does not exist, or if its file exists with other contents."""
    for name in names:
        file = f"{name.removesuffix('.conflist')}.conflist"
        source = networks / file
        if source.parent != networks or not source.is_file():
            known = ", ".join(sorted(path.stem for path in networks.glob("*.conflist")))
            raise InstallError(f"there is no conf/{file}; CONF is one of: {known}")
        target = confdir / source.name
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            raise InstallError(
                f"{target} has other contents and was left alone: remove it, or leave it out of CONF"
            )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    return folder

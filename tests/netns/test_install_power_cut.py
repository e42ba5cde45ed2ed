"""The power goes right after an installation: what has its name is whole."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.state import executables
from cni.testing import Host, why_no_namespaces
from cni.testing.place import CommandError
from install_tree import Prefix
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = "0.1.0-0123456789ab"
FILES = 50
NAMES = (scene.INTERFACE, scene.PORTS)
PROGRAM = b"a program" * 1000


class Disk:
    """A file system in a file: a copy of that is the disk as a power cut would leave it."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self.run = host.call
        self._image, self._copy = folder / "image", folder / "copy"
        self.path, self._after = folder / "disk", folder / "after"
        for each in (self.path, self._after):
            each.mkdir()
        with self._image.open("wb") as file:
            file.truncate(64 << 20)
        try:
            host.run(["mkfs.ext4", "-q", str(self._image)])
            host.run(["mount", "-o", "loop", str(self._image), str(self.path)])
        except CommandError as error:
            pytest.skip(f"no file system of its own: {error}")

    def cut(self) -> Path:
        """Return the disk's content after the power cut."""
        shutil.copyfile(self._image, self._copy)
        self._host.run(["mount", "-o", "loop", str(self._copy), str(self._after)])
        return self._after

    def close(self) -> None:
        """Release the loop devices."""
        self._host.run(["umount", str(self._after)], check=False)
        self._host.run(["umount", str(self.path)])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Yield a new disk."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(Path("/")) as host:
        disk = Disk(host, tmp_path)
        yield disk
        disk.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a small folder that the installer accepts as a bundle."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for number in range(FILES):
        (bundle / f"module{number}.pyc").write_bytes(b"code" * 100 * number)
    (bundle / "build").write_text(BUILD)
    return bundle


def _install(disk: Path, bundle: Path) -> None:
    prefix = Prefix(disk / "opt")
    with prefix.locked(make=True):
        prefix.ensure_tree(bundle)
        (disk / "bin").mkdir()
        executables.put(disk / "bin", NAMES, PROGRAM)
    # Whatever else wants something written has the disk take down all names there are.
    with (disk / "other").open("w") as other:
        other.flush()
        os.fsync(other.fileno())


def test_an_installation_that_has_its_name_is_whole_after_a_power_cut(disk: Disk, bundle: Path) -> None:
    disk.run(_install, disk.path, bundle)
    found = disk.cut()
    names = [path.name for path in bundle.iterdir()]
    assert disk.run(_differing, bundle, found / "opt" / BUILD, names) == []
    assert disk.run(_programs, found / "bin") == [PROGRAM] * len(NAMES)


def _differing(bundle: Path, tree: Path, names: list[str]) -> list[str]:
    _, differing, missing = filecmp.cmpfiles(bundle, tree, names, shallow=False)
    return differing + missing


def _programs(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in NAMES]

"""Small files: whole or not at all, and only where they were meant to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.state import files

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS = [files.write_atomic, files.create_exclusive]

# In a file system of 64 KiB that is full; prints what became of the calls and of the folder.
FULL_DISK = """
import sys
from contextlib import suppress
from pathlib import Path
from cni.errors import CniError
from cni.state import files
folder = Path(sys.argv[1])
files.write_atomic(folder / "old", b"old")
with suppress(OSError), open(folder / "ballast", "wb", buffering=0) as ballast:
    while True:
        ballast.write(bytes(4096))
for call in (files.write_atomic, files.create_exclusive):
    for name in ("old", "new"):
        try:
            print(call(folder / name, b"n" * 4096))
        except CniError as error:
            print(error.code, error.msg)
print((folder / "old").read_bytes(), sorted(each.name for each in folder.iterdir()))
"""


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_a_new_file_has_content_and_mode_whatever_the_umask(
    tmp_path: Path, write: Callable[[Path, bytes, int], object]
) -> None:
    umask = os.umask(0o777)
    try:
        write(tmp_path / "file", b"content\r\n", 0o640)
    finally:
        os.umask(umask)
    assert (tmp_path / "file").read_bytes() == b"content\r\n"
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o640
    assert names(tmp_path) == ["file"]


def test_write_replaces_and_create_does_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.create_exclusive(path, b"one")
    assert not files.create_exclusive(path, b"two")
    assert files.read(path) == b"one"
    files.write_atomic(path, b"three")
    assert files.read(path) == b"three"
    assert names(tmp_path) == ["file"]


def test_a_reader_of_the_old_file_continues_to_read_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, b"one")
    with path.open("rb") as reader:
        files.write_atomic(path, b"two")
        assert reader.read() == b"one"


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    script = f"mount -t tmpfs -o size=64k tmpfs {mounted} && exec {sys.executable} -c '{FULL_DISK}' {mounted}"
    argv = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    full = "no space left on device"
    assert shown.splitlines() == [
        f"106 could not write {mounted}/old: {full}",
        f"106 could not write {mounted}/new: {full}",
        "False",
        f"106 could not create {mounted}/new: {full}",
        "b'old' ['ballast', 'old']",
    ]


def test_a_planted_symlink_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    with pytest.raises(CniError) as caught:
        files.read(link)
    assert caught.value.code == Code.STORE
    assert str(link) in caught.value.msg
    assert not files.create_exclusive(link, b"bad")
    files.write_atomic(link, b"new")
    assert victim.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_removing_a_symlink_keeps_its_target(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    assert files.remove(link)
    assert names(tmp_path) == ["victim"]


def test_absence_is_no_error_for_read_and_remove(tmp_path: Path) -> None:
    assert files.read(tmp_path / "no") is None
    assert not files.remove(tmp_path / "no")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_reading_what_is_no_file_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(CniError, match="not a regular file"):
        files.read(path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CniError, match="larger than 16 MiB"):
        files.read(path)


@pytest.mark.parametrize("write", WRITERS)
def test_a_missing_folder_is_named(tmp_path: Path, write: Callable[[Path, bytes], object]) -> None:
    with pytest.raises(CniError, match="no such file or directory") as caught:
        write(tmp_path / "no" / "file", b"")
    assert str(tmp_path / "no" / "file") in caught.value.msg


def test_folders_made_are_told_and_removed_up_to_one_in_use(tmp_path: Path) -> None:
    made = files.ensure_directory(tmp_path / "a" / "b" / "c", 0o755)
    assert made == [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert files.ensure_directory(tmp_path / "a" / "b" / "c") == []
    (tmp_path / "a" / "file").write_bytes(b"")
    files.remove_directories(made)
    assert names(tmp_path / "a") == ["file"]


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(CniError, match="not a directory") as caught:
        files.ensure_directory(tmp_path / "a" / "b")
    assert caught.value.code == Code.STORE


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    files.write_atomic(tmp_path / "file", b"x")
    files.create_exclusive(tmp_path / "file", b"x")
    files.read(tmp_path / "file")
    with pytest.raises(CniError):
        files.read(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before

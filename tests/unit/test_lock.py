"""The file lock, against other processes that hold it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.state import lock
from cni.state.lock import held, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    argv = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_a_time_out_names_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process, pytest.raises(CniError) as caught, locked(path, timeout_s=0.1):
        pass
    assert caught.value.code == Code.TRY_AGAIN
    assert str(path) in caught.value.msg
    assert f"process {process.pid} (python" in caught.value.details


TAKE_TURNS = """
import fcntl, os, sys, time
path, turns = sys.argv[1:]
def next_holder():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        # Shared locks overlap, so that the file is locked all the time.
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_CREAT, 0o600), fcntl.LOCK_SH)
        os.write(writer, b".")
        time.sleep(600)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    return child
holder = next_holder()
print(flush=True)
for _ in range(int(turns)):
    time.sleep(0.5)
    before, holder = holder, next_holder()
    os.kill(before, 9)
    os.wait()
os.kill(holder, 9)
"""


@contextmanager
def turns(path: Path, number: int) -> Iterator[None]:
    """Other processes that hold the lock one after the other, each for half a second."""
    argv = [sys.executable, "-c", TAKE_TURNS, str(path), str(number)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def test_the_limit_begins_anew_with_each_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_LOOK_S", 0.1)
    start = time.monotonic()
    with turns(tmp_path / "lock", 8), locked(tmp_path / "lock", timeout_s=3):
        assert time.monotonic() - start > 3


def test_a_wait_for_holders_that_take_turns_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_LOOK_S", 0.1)
    monkeypatch.setattr(lock, "_MOST_LIMITS", 2)
    with turns(tmp_path / "lock", 10), pytest.raises(CniError) as caught, locked(tmp_path / "lock", 2):
        pass
    assert caught.value.code == Code.TRY_AGAIN


def test_nobody_prolongs_a_wait_for_a_file_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_LOOK_S", 0.1)
    path = tmp_path / "lock"
    with (
        turns(path, 8),
        path.open() as file,
        pytest.raises(CniError, match=r"within 1\.5 s"),
        held(file.fileno(), str(path), 1.5),
    ):
        pass


def test_the_lock_is_taken_when_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as process:
        process.kill()
        with locked(path, timeout_s=5):
            pass


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), locked(path):
        raise RuntimeError
    with locked(path, timeout_s=0):
        pass


def test_the_file_gets_the_mode_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    umask = os.umask(0o022)
    try:
        with locked(path, mode=0o750):
            pass
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o7777 == 0o750
    assert path.read_bytes() == b""


def test_a_planted_symlink_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CniError) as caught, locked(path):
        pass
    assert caught.value.code == Code.STORE
    assert str(path) in caught.value.msg
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_a_path_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(CniError) as caught, locked(path, timeout_s=0):
        pass
    assert caught.value.code == Code.STORE


def test_a_missing_folder_is_a_store_error(tmp_path: Path) -> None:
    with (
        pytest.raises(CniError, match="no such file or directory") as caught,
        locked(tmp_path / "no" / "lock"),
    ):
        pass
    assert caught.value.code == Code.STORE


def test_a_lock_file_removed_while_waiting_is_made_anew(tmp_path: Path) -> None:
    """A process that waits on a removed file would share the lock with the maker of the next one."""
    path = tmp_path / "lock"
    with holder(path) as process:
        child = os.fork()
        if child == 0:
            with locked(path, timeout_s=10):
                (tmp_path / "taken").write_text(str(path.stat().st_ino), encoding="utf-8")
            os._exit(0)
        time.sleep(0.1)
        path.unlink()
        process.kill()
        assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "taken").read_text(encoding="utf-8") == str(path.stat().st_ino)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_not_leaked(tmp_path: Path) -> None:
    before = open_descriptors()
    with locked(tmp_path / "lock"):
        pass
    with holder(tmp_path / "lock"), pytest.raises(CniError), locked(tmp_path / "lock", timeout_s=0):
        pass
    assert open_descriptors() == before


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, close_fds=False)
    try:
        with locked(tmp_path / "lock", timeout_s=2):
            pass
    finally:
        child.communicate()

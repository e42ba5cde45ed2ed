"""The holder of a lock is found by file system and inode: two file systems may use equal inode numbers."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

    from cni.testing import Host

PATHS = ["/run/one/lock", "/run/two/lock"]
# It reads nothing, ever: it ends by being killed.
HOLD = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
print(flush=True)
time.sleep(1200)
"""


@contextmanager
def holder(host: Host, path: str) -> Iterator[Popen[str]]:
    process = host.place.popen([sys.executable, "-c", HOLD, path])
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def told(path: str) -> str:
    with pytest.raises(CniError) as caught, locked(Path(path), timeout_s=0):
        pass
    return caught.value.details


def test_a_lock_of_another_file_system_is_not_taken_for_this_one(host: Host) -> None:
    for path in PATHS:
        folder = str(Path(path).parent)
        host.run(["mkdir", folder])
        host.run(["mount", "-t", "tmpfs", "tmpfs", folder])
    with ExitStack() as stack:
        processes = [stack.enter_context(holder(host, path)) for path in PATHS]
        numbers = host.run(["stat", "-c", "%i", *PATHS]).split()
        assert numbers[0] == numbers[1], "they are not numbered alike, and this shows nothing"
        for path, process in zip(PATHS, processes, strict=True):
            assert host.call(told, path).startswith(f"it is held by process {process.pid} (python")

"""No signal is sent to a process that is no server of ours, whatever holds the lock of a status file."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.warm import control, report
from tests.support.patience import LONG_S
from tests.warm import peers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.warm.conftest import WarmHost

_FLOCK = struct.Struct("@hhqqi4x")  # fcntl(2), struct flock


def _lock_as_nobody(path: Path) -> int:
    """Hold a lock that belongs to an open file description: the kernel gives -1 as its process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return fd


def _survivors(do: Callable[[], None], wait_s: float) -> bytes:
    """Run as process 1 of a new namespace with another process in it. Return whether that one survives.

    A signal to "all processes" goes to those in the namespace, but for process 1 and the sender.
    """
    peers.mount_proc()
    peers.mount_empty("/run")
    report.FOLDER.mkdir(parents=True, mode=0o700)
    bystander = subprocess.Popen(["/bin/sleep", "60"])
    child = os.fork()
    if child == 0:
        do()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    with suppress(subprocess.TimeoutExpired):
        bystander.wait(wait_s)
    return f"{status} {bystander.poll()}".encode()


def _apart(do: Callable[[], None], wait_s: float = 0.1) -> str:
    def outside() -> bytes:
        peers.unshare("mnt", "pid")
        return peers.in_child(lambda: _survivors(do, wait_s))

    return peers.in_child(outside).decode()


def _stop_all() -> None:
    _lock_as_nobody(report.FOLDER / "test-0.status")
    control.stop_all()


def _start_another() -> None:
    _lock_as_nobody(report.FOLDER / "test-0.status")
    report.Report(report.FOLDER / "test-0.sock")


def _all_processes() -> None:
    os.kill(-1, signal.SIGTERM)


def test_a_lock_without_a_holder_is_no_server() -> None:
    assert _apart(_stop_all) == "0 None"


def test_a_new_server_ends_no_process_for_a_lock_without_a_holder() -> None:
    assert _apart(_start_another) == "0 None"


def test_a_signal_to_all_processes_is_detected() -> None:
    """The two tests above would detect such a signal."""
    assert _apart(_all_processes, LONG_S).split()[1] == str(-signal.SIGTERM)


def test_a_server_whose_lock_has_no_holder_is_not_listed(warm_host: WarmHost) -> None:
    warm_host.odd()
    [server] = warm_host.call(control.find)

    def listed() -> list[int]:
        _lock_as_nobody(server.path.with_name("test-0.status"))
        return [each.pid for each in control.find()]

    assert warm_host.call(listed) == [server.pid]

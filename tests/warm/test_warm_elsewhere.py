"""Outside the namespaces of process 1 a call starts a server only if another call came just before."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene
from tests.support.patience import wait_until
from tests.warm import peers

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

EVERYWHERE = "/etc/cni/pycni/warm-everywhere"
NOTES = "/run/pycni/warm/elsewhere"
VERSION = BARE_ENV | {"CNI_COMMAND": "VERSION"}
_NOTE_BYTES = 16


@pytest.fixture
def away(warm_host: WarmHost) -> WarmHost:
    """Return a host outside the namespaces of process 1, without the setting that starts servers there."""
    warm_host.run(["rm", EVERYWHERE])
    return warm_host


def version(host: WarmHost, *wrapper: str) -> None:
    assert "1.1.0" in host.run([*wrapper, str(host.bindir / scene.LOOPBACK)], env=VERSION)


def test_calls_that_each_have_a_mount_namespace_leave_no_server(away: WarmHost) -> None:
    """`ip netns exec` makes such a namespace for each call."""
    away.sandbox("h")
    for _ in range(12):
        version(away, "ip", "netns", "exec", "h")
    assert away.servers() == []
    left = away.run(["ls", "/run/pycni/warm"]).split()
    assert left == ["elsewhere"]


def _date(seconds_ago: int) -> None:
    """Set the time of all recorded calls: on a busy machine two calls may be further apart than meant."""
    notes, second = bytearray(Path(NOTES).read_bytes()), int(time.clock_gettime(time.CLOCK_BOOTTIME))
    for at in range(0, len(notes), _NOTE_BYTES):
        if any(notes[at : at + _NOTE_BYTES]):
            notes[at + 8 : at + _NOTE_BYTES] = (second - seconds_ago).to_bytes(8, "little", signed=True)
    Path(NOTES).write_bytes(notes)


def test_the_second_call_from_a_place_starts_a_server(away: WarmHost) -> None:
    version(away)
    assert away.servers() == []
    away.call(_date, 0)
    version(away)
    [server] = away.servers()
    assert away.status()["requests"] == 1
    version(away)
    assert away.servers() == [server]
    assert away.status()["requests"] == 2


def test_a_call_after_a_pause_counts_as_the_first_one(away: WarmHost) -> None:
    version(away)
    away.call(_date, 11)
    version(away)
    assert away.servers() == []
    away.call(_date, 3)
    version(away)
    assert len(away.servers()) == 1


def test_an_inode_number_that_is_used_again_is_another_place(away: WarmHost) -> None:
    """The kernel gives the number of a mount namespace that has ended to the next one."""
    script = f"readlink /proc/self/ns/mnt; {away.bindir}/{scene.LOOPBACK} --warm-socket"
    seen: list[list[str]] = []

    def is_used_again() -> bool:
        seen.append(away.run(["unshare", "--mount", "sh", "-c", script]).split())
        return len({inode for inode, _ in seen}) < len(seen)

    wait_until(is_used_again)
    assert len({path for _, path in seen}) == len(seen)


def test_in_the_mount_namespace_of_process_1_the_first_call_starts_a_server(away: WarmHost) -> None:
    script = f"{away.bindir}/{scene.LOOPBACK} > /dev/null; cat /run/pycni/warm/log"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    assert "listens at" in away.run(command, env=VERSION)


def test_a_file_lets_the_first_call_start_a_server_anywhere(away: WarmHost) -> None:
    away.run(["touch", EVERYWHERE])
    version(away)
    assert len(away.servers()) == 1


@pytest.mark.parametrize(
    "obstacle",
    [
        f"ln -s /run/target {NOTES}",
        f"mkdir {NOTES}",
        f"mkfifo {NOTES}",
        f"head -c 9000 /dev/urandom > {NOTES}",
        f"ln -s /dev/full {NOTES}",
    ],
)
def test_a_file_in_place_of_the_notes_is_harmless(away: WarmHost, obstacle: str) -> None:
    away.run(["sh", "-c", f"touch /run/target; {obstacle}"])
    version(away)
    version(away)
    assert away.run(["cat", "/run/target"]) == ""


def test_the_command_starts_a_server_at_once(away: WarmHost) -> None:
    server = away.call(control.start, away.bindir / scene.LOOPBACK)
    assert away.servers() == [server.pid]


def _call_without_own_proc(program: str) -> bytes:
    """Call in a process ID namespace whose /proc shows another one."""
    peers.unshare("pid")

    def call() -> bytes:
        reader, writer = os.pipe()
        os.posix_spawn(program, [program], VERSION, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
        os.wait()
        return os.read(reader, 4096)

    return peers.in_child(call)


def test_no_server_starts_if_proc_shows_another_pid_namespace(warm_host: WarmHost) -> None:
    """A worker could not read the properties of its callers there."""
    told = warm_host.call(_call_without_own_proc, str(warm_host.bindir / scene.LOOPBACK))
    assert b"1.1.0" in told
    assert warm_host.servers() == []

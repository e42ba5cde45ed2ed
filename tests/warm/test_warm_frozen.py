"""A server that cannot run delays one call by a second, and no other call."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.warm import control
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.warm.conftest import WarmHost

V1, V2 = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup/unified")


def pids_of(host: WarmHost) -> list[int]:
    [server] = host.call(control.find)
    return [server.pid, *control.children(server.pid)]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _await(path: Path, text: str) -> None:
    wait_until(lambda: text in path.read_text())


@contextmanager
def group(above: Path, pids: list[int]) -> Iterator[Path]:
    """Make a control group of processes; it ends when they are in the group above again."""
    made = above / f"pycni-test-{os.getpid()}"
    made.mkdir()
    try:
        for pid in pids:
            (made / "cgroup.procs").write_text(str(pid))
        yield made
    finally:
        for each in (made / "cgroup.procs").read_text().split():
            (above / "cgroup.procs").write_text(each)
        made.rmdir()


@contextmanager
def frozen_v2(pids: list[int]) -> Iterator[None]:
    with group(V2, pids) as made:
        (made / "cgroup.freeze").write_text("1")
        try:
            _await(made / "cgroup.events", "frozen 1")
            yield
        finally:
            (made / "cgroup.freeze").write_text("0")


@contextmanager
def frozen_v1(pids: list[int]) -> Iterator[None]:
    with group(V1, pids) as made:
        (made / "freezer.state").write_text("FROZEN")
        try:
            _await(made / "freezer.state", "FROZEN")
            yield
        finally:
            (made / "freezer.state").write_text("THAWED")


# What this machine lets its users do; a stop is always possible.
HOLDS = {
    "stopped": stopped,
    **({"frozen, version 1": frozen_v1} if os.access(V1 / "cgroup.procs", os.W_OK) else {}),
    **({"frozen, version 2": frozen_v2} if os.access(V2 / "cgroup.procs", os.W_OK) else {}),
}


def is_warm(host: WarmHost) -> bool:
    """Make a call. Return whether a worker has served it."""
    return int(host.facts()["parent"]) in host.servers()


def waited_s(host: WarmHost) -> float:
    """Make a call that no worker serves. Return the seconds for which it waited."""
    seconds, facts = host.waited_s()
    assert int(facts["parent"]) not in host.servers()
    return seconds


@pytest.mark.parametrize("how", HOLDS)
def test_a_server_that_cannot_run_delays_one_call_by_a_second(warm_host: WarmHost, how: str) -> None:
    warm_host.odd()
    with HOLDS[how](pids_of(warm_host)):
        first, *others = [waited_s(warm_host) for _ in range(5)]
        assert 0.9 < first < 2
        assert max(others) < 0.9
    wait_until(lambda: is_warm(warm_host))


def test_workers_that_cannot_run_delay_a_call_by_a_second(warm_host: WarmHost) -> None:
    """The server itself could run, and has nothing to do."""
    warm_host.odd()
    server, *workers = pids_of(warm_host)
    with stopped(workers):
        assert 0.9 < waited_s(warm_host) < 2
    assert warm_host.servers() == [server]


def test_calls_that_wait_for_a_busy_server_are_served(warm_host: WarmHost) -> None:
    """Each takes a second, and the last of them waits for longer than that."""
    warm_host.settings(workers=1)
    warm_host.odd()
    [server] = warm_host.servers()
    script = f"""
        export CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS=/n CNI_IFNAME=e CNI_PATH=/o
        for i in $(seq 40); do
            echo '{{"cniVersion": "1.0.0", "name": "n", "type": "odd", "do": "nap"}}' |
                {warm_host.bindir}/odd &
        done 2> /run/told
        wait"""
    warm_host.run(["sh", "-c", script])
    told = warm_host.run(["cat", "/run/told"])
    assert told.count('"parent"') == 40
    assert told.count(f'"parent": "{server}"') == 40


@pytest.mark.parametrize("content", ["", "x", "\\0" * 16, "x" * 4000])
def test_a_file_in_place_of_the_note_delays_no_call_for_long(warm_host: WarmHost, content: str) -> None:
    warm_host.odd()
    path = warm_host.run([str(warm_host.bindir / "odd"), "--warm-socket"]).strip() + ".stalled"
    warm_host.run(["sh", "-c", f"printf '{content}' > {path}; touch -d '1 hour ago' {path}"])
    assert is_warm(warm_host)
    for command in (f"mkdir {path}", f"rmdir {path}; mkfifo {path}", f"rm {path}; ln -s /run {path}"):
        warm_host.run(["sh", "-c", command])
        assert is_warm(warm_host)

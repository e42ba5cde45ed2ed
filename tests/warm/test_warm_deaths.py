"""A launcher, a worker or the server ends in the middle of a call."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support.patience import LONG_S, wait_until
from tests.warm.odd.cni_odd import WAIT_S

if TYPE_CHECKING:
    import subprocess

    from tests.warm.conftest import WarmHost

pytestmark = pytest.mark.forked
ODD_WAITS = {"cniVersion": "1.0.0", "name": "n", "type": "odd", "do": "wait"}


def start(host: WarmHost, name: str, conf: dict[str, Any], netns: str) -> subprocess.Popen[str]:
    """Start an ADD without waiting for it."""
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": netns, "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.bindir),
    }  # fmt: skip
    return host.place.popen([str(host.bindir / name)], json.dumps(conf), env=BARE_ENV | env)


def waiting(host: WarmHost, do: str = "wait") -> tuple[subprocess.Popen[str], int]:
    """Return a call that a worker is in the middle of, and the worker's process ID."""
    launcher = start(host, "odd", {**ODD_WAITS, "do": do}, "/run/netns/none")
    return launcher, await_doing(host)


def await_doing(host: WarmHost) -> int:
    """Wait until the plugin has begun what it was asked for. Return the worker's process ID."""
    doing = Path(f"/proc/{host.pid}/root/run/doing")
    wait_until(lambda: doing.exists() and doing.read_text())
    worker = int(doing.read_text())
    doing.unlink()
    return worker


def is_undone(host: WarmHost) -> bool:
    return Path(f"/proc/{host.pid}/root/run/undone").exists()


def wait_for_end(pid: int) -> None:
    """Wait until a process is gone. A call that is not interrupted goes on for longer than the limit."""
    wait_until(lambda: not Path(f"/proc/{pid}/root").exists(), within_s=WAIT_S - 10)


def test_a_worker_ends_with_its_launcher(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host)
    launcher.kill()
    wait_for_end(worker)
    launcher.communicate()
    assert not is_undone(warm_host)
    assert warm_host.odd().ok


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_a_launcher_undoes_its_call(warm_host: WarmHost, number: int) -> None:
    launcher, worker = waiting(warm_host)
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=LONG_S)
    answer = json.loads(out)
    told = f"interrupted by {signal.Signals(number).name}"
    assert (launcher.returncode, answer["code"], answer["msg"]) == (1, 11, told)
    assert is_undone(warm_host)
    wait_for_end(worker)
    assert warm_host.odd().ok


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_stopped_after_the_response_prints_it_once(warm_host: WarmHost, number: int) -> None:
    launcher, worker = waiting(warm_host, "end slowly")
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=LONG_S)
    assert (launcher.returncode, json.loads(out)) == (0, {"cniVersion": "1.0.0"})
    assert not is_undone(warm_host)
    # The worker has heard of it, and can be used again.
    assert warm_host.status()["busy"] == 0
    assert Path(f"/proc/{worker}/root").exists()
    launcher, _ = waiting(warm_host)
    launcher.send_signal(number)
    told = f"interrupted by {signal.Signals(number).name}"
    assert json.loads(launcher.communicate(timeout=LONG_S)[0])["msg"] == told


def test_a_launcher_that_is_stopped_and_then_killed_ends_its_worker(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host)
    os.kill(worker, signal.SIGSTOP)
    launcher.terminate()
    launcher.kill()
    time.sleep(0.05)
    os.kill(worker, signal.SIGCONT)
    wait_for_end(worker)
    launcher.communicate()


def test_a_killed_worker_gives_an_error_object(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host)
    os.kill(worker, signal.SIGKILL)
    out, _ = launcher.communicate(timeout=LONG_S)
    answer = json.loads(out)
    assert (launcher.returncode, answer["code"]) == (1, 11)
    assert answer["msg"] == "plugin odd: the worker was killed during the call"
    assert answer["cniVersion"] == "1.1.0"
    assert warm_host.odd().ok
    warm_host.await_log(f"worker {worker} was killed by signal 9")


def test_a_stopped_worker_gives_an_error_object_in_time(warm_host: WarmHost) -> None:
    warm_host.odd()
    launcher = warm_host.place.popen(
        ["env", "PYCNI_WARM_ANSWER_S=1", str(warm_host.bindir / "odd")],
        json.dumps(ODD_WAITS | {"do": "stop"}),
        env={
            **BARE_ENV,
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c",
            "CNI_NETNS": "/n",
            "CNI_IFNAME": "e",
            "CNI_PATH": str(warm_host.bindir),
        },
    )
    worker = await_doing(warm_host)
    launcher.wait(timeout=LONG_S)
    # The kernel may have killed it by now.
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    out, _ = launcher.communicate(timeout=LONG_S)
    assert json.loads(out)["msg"] == "plugin odd: the worker did not respond in time and was killed"
    wait_for_end(worker)


def test_killing_a_server_does_not_affect_running_calls(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host)
    [server] = warm_host.call(control.find)
    idle = [pid for pid in control.children(server.pid) if pid != worker]
    os.kill(server.pid, signal.SIGKILL)
    for pid in (server.pid, *idle):
        wait_for_end(pid)
    assert Path(f"/proc/{worker}/root").exists()

    def is_there_another() -> bool:
        """Make a call. It is cold if it comes before the busy worker has closed the socket."""
        assert warm_host.odd().ok
        return bool(warm_host.servers())

    wait_until(is_there_another)
    [new] = warm_host.call(control.find)
    assert new.pid != server.pid
    launcher.terminate()
    out, _ = launcher.communicate(timeout=LONG_S)
    assert json.loads(out)["msg"] == "interrupted by SIGTERM"
    wait_for_end(worker)
    assert warm_host.servers() == [new.pid]


def test_a_running_call_succeeds_although_its_server_is_killed(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host, "nap")
    [server] = warm_host.call(control.find)
    os.kill(server.pid, signal.SIGKILL)
    out, _ = launcher.communicate(timeout=LONG_S)
    assert (launcher.returncode, json.loads(out)) == (0, {"cniVersion": "1.0.0"})
    wait_for_end(worker)


def test_a_server_that_gets_sigterm_waits_for_no_call(warm_host: WarmHost) -> None:
    launcher, worker = waiting(warm_host)
    [server] = warm_host.call(control.find)
    wait_until(lambda: warm_host.call(control.stop, server))
    assert Path(f"/proc/{worker}/root").exists()
    assert warm_host.odd().ok
    launcher.terminate()
    assert json.loads(launcher.communicate(timeout=LONG_S)[0])["code"] == 11
    wait_for_end(worker)
    assert "the last call changed" not in warm_host.log()


def test_a_time_limit_of_many_days_does_not_overflow(warm_host: WarmHost) -> None:
    """As an int of milliseconds it would be a tenth of a second."""
    limit = {"PYCNI_WARM_ANSWER_S": str((1 << 32) // 1000 + 1), "PYCNI_WARM_ACCEPT_S": str(10**30)}
    assert warm_host.odd("nap", env=limit).ok
    assert warm_host.status()["requests"] == 1


def test_calls_while_servers_are_killed_succeed_or_report_the_reason(warm_host: WarmHost) -> None:
    for _ in range(6):
        calls = [start(warm_host, "odd", {**ODD_WAITS, "do": ""}, "/run/n") for _ in range(6)]
        time.sleep(random.uniform(0, 0.05))  # noqa: S311 - any moment will do
        for server in warm_host.call(control.find):
            os.kill(server.pid, signal.SIGKILL)
        for call in calls:
            out, _ = call.communicate(timeout=LONG_S)
            assert (call.returncode, json.loads(out).get("code")) in {(0, None), (1, 11)}

"""The operator's side: `pycni warm`, the switch, the log, and systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.state import executables
from cni.testing.place import BARE_ENV
from cni.warm import control, units
from tests.support import scene
from tests.support.patience import wait_until
from tests.warm.test_warm_deaths import wait_for_end

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost


def pycni(host: WarmHost, *arguments: str) -> str:
    return host.run([str(host.bindir.parent / "pycni"), "warm", *arguments])


def test_status_reports_processes_and_memory(warm_host: WarmHost) -> None:
    assert pycni(warm_host, "status") == "No warm server runs.\n"
    for _ in range(3):
        warm_host.odd()
    [told] = json.loads(pycni(warm_host, "status", "--json"))["servers"]
    assert (told["build"], told["requests"], told["busy"]) == ("test", 3, 0)
    assert told["pid"] in warm_host.servers()
    assert sorted(control.children(told["pid"])) == told["workers"]
    assert 5_000 < told["pss_kib"] < 100_000
    table = pycni(warm_host, "status").split()
    assert {"BUILD", "test", str(told["pid"]), "MiB"} <= set(table)


def test_start_and_stop(warm_host: WarmHost) -> None:
    [told] = re.findall(r"runs as process (\d+)", pycni(warm_host, "start"))
    assert warm_host.servers() == [int(told)]
    assert json.loads(pycni(warm_host, "start", "--json")) == {"build": "test", "pid": int(told)}
    assert pycni(warm_host, "stop") == f"Stopped: {told}.\n"
    assert warm_host.servers() == []
    assert pycni(warm_host, "stop") == "No warm server runs.\n"


def test_start_is_an_error_if_switched_off(warm_host: WarmHost) -> None:
    warm_host.run(["touch", "/etc/cni/pycni/warm-off"])
    command = [str(warm_host.bindir.parent / "pycni"), "warm", "start"]
    done = warm_host.place.run(command, check=False)
    assert done.returncode == 1
    assert "no warm server has started" in done.stderr
    assert "switched off by /etc/cni/pycni/warm-off" in pycni(warm_host, "status")


@pytest.mark.forked
def test_a_server_that_does_not_answer_is_shown(warm_host: WarmHost) -> None:
    warm_host.odd()
    [pid] = warm_host.servers()
    os.kill(pid, signal.SIGSTOP)
    assert "does not respond" in pycni(warm_host, "status")
    os.kill(pid, signal.SIGCONT)


@pytest.mark.forked
def test_status_starts_no_server(warm_host: WarmHost) -> None:
    pycni(warm_host, "status")
    assert warm_host.servers() == []
    warm_host.odd()
    pycni(warm_host, "status")
    assert warm_host.status()["requests"] == 1


def test_processes_have_names(warm_host: WarmHost) -> None:
    warm_host.odd()
    [pid] = warm_host.servers()
    names = [Path(f"/proc/{each}/comm").read_text() for each in [pid, *control.children(pid)]]
    assert names == ["pycni-server\n", *["pycni-worker\n"] * (len(names) - 1)]


def test_systemd_accepts_the_units(warm_host: WarmHost, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    pycni(warm_host, "units", "--write", str(tmp_path))
    command = ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, re.findall(r".*pycni.*", done.stderr)) == (0, [])
    assert f"# /etc/systemd/system/{units.SOCKET_NAME}" in pycni(warm_host, "units")


class Systemd:
    """The part of systemd for the two units: it binds, runs what comes after, and starts the service."""

    def __init__(self, launcher: Path) -> None:
        self._lines: dict[str, list[str]] = {}
        for text in units.units(launcher).values():
            for name, value in re.findall("^([A-Za-z]+)=(.*)$", text, re.MULTILINE):
                self._lines.setdefault(name, []).append(value)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._lines["ListenSequentialPacket"][0])
        self._listener.listen(int(self._lines["Backlog"][0]))
        self._run("ExecStartPost")

    def stop_socket(self) -> None:
        self._listener.close()
        self._run("ExecStopPost")

    def _run(self, what: str) -> None:
        for line in self._lines[what]:
            script = re.fullmatch(r"/bin/sh -c '(.*)'", line)
            assert script
            subprocess.run(["/bin/sh", "-c", script[1].replace("$$", "$")], check=True)

    def start(self) -> int:
        command = self._lines["ExecStart"][0].split()
        pid = os.fork()
        if pid == 0:
            os.dup2(self._listener.fileno(), 3)
            log = os.open("/run/journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            env = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "JOURNAL_STREAM": "9:9", **BARE_ENV}
            os.execve(command[0], command, env)  # noqa: S606 - as systemd does
        return pid


def _version(launcher: Path) -> str:
    env = {"CNI_COMMAND": "VERSION", **BARE_ENV}
    return subprocess.run([launcher], capture_output=True, text=True, env=env, check=True).stdout


def _wait_for_servers(*pids: int) -> None:
    wait_until(lambda: [each.pid for each in control.find()] == list(pids))


def _wait_for_a_call_of(server: control.Running) -> None:
    """Wait until a server reports one call. It counts a call after the response."""
    wait_until(lambda: control.status(server).get("requests") == 1)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0


def _serve_as_systemd(launcher: Path) -> tuple[int, int, list[str]]:
    systemd = Systemd(launcher)
    pids = []
    outputs = []
    for _ in range(2):
        pid = systemd.start()
        outputs.append(_version(launcher))
        _wait_for_servers(pid)
        _end(pid)
        pids.append(pid)
        assert control.socket_of(launcher).exists()
    return pids[0], pids[1], outputs


def test_the_server_runs_under_systemd(warm_host: WarmHost) -> None:
    first, second, outputs = warm_host.call(_serve_as_systemd, warm_host.bindir / scene.LOOPBACK)
    assert first != second
    assert all("1.1.0" in output for output in outputs)
    journal = warm_host.run(["cat", "/run/journal"])
    assert journal.count("listens at") == 2
    assert warm_host.log() == ""


def _take_over(launcher: Path) -> int:
    """Let systemd start its server where one runs already, and start it again, as after an upgrade."""
    _version(launcher)
    pids = [each.pid for each in control.find()]
    for _ in range(2):
        systemd = Systemd(launcher)
        pids.append(systemd.start())
        _version(launcher)
        _wait_for_servers(pids[-1])
        _wait_for_a_call_of(*control.find())
    _end(pids[2])
    assert os.waitpid(pids[1], 0)[1] == 0
    return pids[0]


def test_a_systemd_server_replaces_the_running_one(warm_host: WarmHost) -> None:
    first = warm_host.call(_take_over, warm_host.bindir / scene.LOOPBACK)
    assert not Path(f"/proc/{first}/root").exists()
    assert warm_host.servers() == []
    assert warm_host.run(["cat", "/run/journal"]).count("listens at") == 2


@pytest.mark.forked
def test_a_server_whose_socket_was_removed_is_replaced(warm_host: WarmHost) -> None:
    warm_host.odd()
    [first] = warm_host.servers()
    path = warm_host.run([str(warm_host.bindir / "odd"), "--warm-socket"]).strip()
    warm_host.run(["rm", path])
    parent = warm_host.facts()["parent"]
    assert warm_host.servers() == [int(parent)]
    assert int(parent) != first
    wait_for_end(first)
    assert warm_host.servers() == [int(parent)]
    assert warm_host.facts()["parent"] == parent


@pytest.mark.forked
def test_a_stopped_server_whose_socket_was_removed_blocks_no_call(warm_host: WarmHost) -> None:
    warm_host.odd()
    [first] = warm_host.servers()
    os.kill(first, signal.SIGSTOP)
    warm_host.run(["sh", "-c", "rm /run/pycni/warm/*.sock"])
    parent = int(warm_host.facts()["parent"])
    assert warm_host.servers() == [parent]
    os.kill(first, signal.SIGCONT)
    wait_for_end(first)
    assert warm_host.servers() == [parent]


def _upgrade(launcher: Path, new: bytes) -> tuple[Path, Path]:
    systemd = Systemd(launcher)
    old = control.socket_of(launcher)
    executables.put(launcher.parent, [launcher.name], new)
    _version(launcher)
    systemd.stop_socket()
    return old, control.socket_of(launcher)


def test_the_systemd_socket_of_an_old_build_is_replaced(warm_host: WarmHost, launcher: Path) -> None:
    tree, program = str(warm_host.bindir.parent), launcher.read_bytes()
    warm_host.run(["mkdir", "/run/bin"])
    installed = Path("/run/bin") / scene.LOOPBACK
    warm_host.call(
        executables.put, installed.parent, [scene.LOOPBACK], executables.launcher(program, tree, "old")
    )
    old, new = warm_host.call(_upgrade, installed, executables.launcher(program, tree, "new"))
    files = warm_host.run(["ls", "/run/pycni/warm"]).split()
    assert old.name not in files
    assert new.name in files
    assert [server.build for server in warm_host.call(control.find)] == ["new"]


def _ask_beside_others(number: int) -> None:
    """Request the status a number of times while another process does so all the time."""
    [server] = control.find()
    child = os.fork()
    if child == 0:
        try:
            while True:
                os.kill(server.pid, signal.SIGUSR1)
        finally:
            os._exit(0)
    try:
        for _ in range(number):
            assert {"uptime_s", "workers", "pss_kib"} <= set(control.status(server))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_concurrent_status_requests_get_whole_responses(warm_host: WarmHost) -> None:
    warm_host.odd()
    warm_host.call(_ask_beside_others, 20)


def test_the_size_of_the_log_is_bounded(warm_host: WarmHost) -> None:
    warm_host.run(["dd", "if=/dev/zero", "of=/run/pycni/warm/log", "bs=1k", "count=1100"])
    warm_host.odd()
    assert len(warm_host.log()) < 1000

"""The operator's side: `pycni warm`, the switch, the log, and systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import BARE_ENV
from cni.warm import control, units

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost


def pycni(host: WarmHost, *arguments: str) -> str:
    return host.run([str(host.bindir.parent / "pycni"), "warm", *arguments])


def test_status_tells_what_runs_and_what_it_costs(warm_host: WarmHost) -> None:
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
    assert pycni(warm_host, "stop") == f"Ended: {told}.\n"
    assert warm_host.servers() == []
    assert pycni(warm_host, "stop") == "No warm server runs.\n"


def test_start_says_when_it_may_not(warm_host: WarmHost) -> None:
    warm_host.run(["touch", "/etc/cni/pycni/warm-off"])
    command = [str(warm_host.bindir.parent / "pycni"), "warm", "start"]
    done = warm_host.place.run(command, check=False)
    assert done.returncode == 1
    assert "no warm server has started" in done.stderr
    assert "switched off by /etc/cni/pycni/warm-off" in pycni(warm_host, "status")


def test_a_server_that_does_not_answer_is_shown(warm_host: WarmHost) -> None:
    warm_host.odd()
    [pid] = warm_host.servers()
    os.kill(pid, signal.SIGSTOP)
    assert "does not answer" in pycni(warm_host, "status")
    os.kill(pid, signal.SIGCONT)


def test_asking_is_no_call_and_starts_nothing(warm_host: WarmHost) -> None:
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


def test_the_units_are_as_systemd_wants_them(warm_host: WarmHost, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    pycni(warm_host, "units", "--write", str(tmp_path))
    command = ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, re.findall(r".*pycni.*", done.stderr)) == (0, [])
    assert f"# /etc/systemd/system/{units.SOCKET_NAME}" in pycni(warm_host, "units")


class Systemd:
    """What systemd does for the two units: it binds, runs ExecStartPost, and starts the service."""

    def __init__(self, launcher: Path) -> None:
        texts = units.units(launcher)
        lines = dict(re.findall("^([A-Za-z]+)=(.*)$", "".join(texts.values()), re.MULTILINE))
        self._command = lines["ExecStart"].split()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(lines["ListenSequentialPacket"])
        self._listener.listen(int(lines["Backlog"]))
        script = re.fullmatch(r"/bin/sh -c '(.*)'", lines["ExecStartPost"])
        assert script
        subprocess.run(["/bin/sh", "-c", script[1].replace("$$", "$")], check=True)

    def start(self) -> int:
        pid = os.fork()
        if pid == 0:
            os.dup2(self._listener.fileno(), 3)
            log = os.open("/run/journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            env = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "JOURNAL_STREAM": "9:9", **BARE_ENV}
            os.execve(self._command[0], self._command, env)  # noqa: S606 - as systemd does
        return pid


def _serve_as_systemd(launcher: Path) -> tuple[int, int, list[str]]:
    systemd = Systemd(launcher)
    pids = []
    outputs = []
    for _ in range(2):
        pid = systemd.start()
        env = {"CNI_COMMAND": "VERSION", **BARE_ENV}
        outputs.append(subprocess.run([launcher], capture_output=True, text=True, env=env, check=True).stdout)
        deadline = time.monotonic() + 5
        while [each.pid for each in control.find()] != [pid]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == 0
        pids.append(pid)
        assert control.place_of(launcher).exists()
    return pids[0], pids[1], outputs


def test_the_server_runs_under_systemd(warm_host: WarmHost) -> None:
    first, second, outputs = warm_host.call(_serve_as_systemd, warm_host.bindir / "loopback")
    assert first != second
    assert all("1.1.0" in output for output in outputs)
    journal = warm_host.run(["cat", "/run/journal"])
    assert journal.count("waits at") == 2
    assert warm_host.log() == ""


def test_the_log_does_not_grow_for_ever(warm_host: WarmHost) -> None:
    warm_host.run(["dd", "if=/dev/zero", "of=/run/pycni/warm/log", "bs=1k", "count=1100"])
    warm_host.odd()
    assert len(warm_host.log()) < 1000

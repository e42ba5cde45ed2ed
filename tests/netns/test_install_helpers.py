"""Helpers of an installed suite: upgrade, systemd's units, and uninstallation."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import install_helpers
from cni.service import control, units
from cni.service.guard import LISTEN_FD
from cni.testing.place import BARE_ENV
from install_tree import Prefix
from tests.helper import echo_serve
from tests.netns.bundled_host import PREFIX, empty_opt
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

__all__ = ["empty_opt"]

COMMAND = str(PREFIX / "bin/pycni")
HELPER = next(iter(control.list_helpers().values()))
FAST = ("--no-self-test", "--units=no")


@pytest.fixture
def installed(empty_opt: Host, bundle: Path) -> Iterator[Host]:
    """Yield a host with the suite; end its helpers."""
    empty_opt.run([str(bundle / "pycni"), "--install", *FAST])
    try:
        yield empty_opt
    finally:
        empty_opt.call(lambda: control.stop(control.find()))


def _report() -> dict[str, Any]:
    wait_until(lambda: [each for each in control.find() if "helper" in control.report(each)])
    [running] = control.find()
    return control.report(running)


def _program(pid: int) -> str:
    return str(Path(f"/proc/{pid}/exe").readlink())


def test_an_upgrade_replaces_a_helper_and_uninstallation_ends_it(
    installed: Host, bundle: Path, tmp_path: Path
) -> None:
    host = installed
    assert host.run([COMMAND, "helper", "start", HELPER.name]) == f"Running: {HELPER.name}.\n"
    before = host.call(_report)
    assert _program(before["pid"]).startswith(f"{PREFIX}/")
    # Guard and helper together.
    assert 5_000 < before["pss_kib"] < 25_000
    new = tmp_path / "bundle"
    shutil.copytree(bundle, new)
    (new / "build").write_text("9.9.9-new")
    output = host.run([str(new / "pycni"), "--install", *FAST])
    assert f"helper of {HELPER.name}: is of this build\n" in output
    after = host.call(_report)
    assert after["pid"] != before["pid"]
    assert "9.9.9-new" in _program(after["helper"])
    wait_until(lambda: not Path(f"/proc/{before['pid']}").exists())
    output = host.run([str(new / "pycni"), "--uninstall"])
    assert f"helper of {HELPER.name}: ended\n" in output
    assert host.call(control.find) == []


def _run_unit() -> tuple[int, dict[str, Any]]:
    """Do what systemd does for the units of a helper; return the service's process and its report."""
    texts = {name: text.replace("%i", HELPER.name) for name, text in units.units(Path(COMMAND)).items()}

    def lines(name: str, key: str) -> list[str]:
        return re.findall(f"^{key}=(.*)$", texts[name], re.MULTILINE)

    # DirectoryMode= of the socket.
    for folder in (Path("/run/pycni"), Path("/run/pycni/helpers")):
        folder.mkdir(mode=0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(lines(units.SOCKET_NAME, "ListenSequentialPacket")[0])
    listener.listen()
    for line in lines(units.SOCKET_NAME, "ExecStartPost"):
        script = re.fullmatch(r"/bin/sh -c '(.*)'", line)
        assert script
        subprocess.run(["/bin/sh", "-c", script[1].replace("$$", "$")], check=True)
    command = lines(units.SERVICE_NAME, "ExecStart")[0].split()
    pid = os.fork()
    if pid == 0:
        os.dup2(listener.fileno(), LISTEN_FD)
        os.execve(command[0], command, {"LISTEN_FDS": "1", **BARE_ENV})  # noqa: S606 - as systemd does
    report = _report()
    # A call from the command is served by the unit.
    subprocess.run([COMMAND, "helper", "start", HELPER.name], check=True, capture_output=True)
    assert _report()["pid"] == pid
    assert control.stop(control.find())[0].pid == pid
    assert os.waitpid(pid, 0)[1] == 0
    # The socket stays for the next request.
    assert Path(HELPER.path).is_socket()
    return pid, report


def test_the_units_run_the_installed_helper(installed: Host) -> None:
    pid, report = installed.call(_run_unit)
    assert (report["pid"], report["unit"]) == (pid, True)


def _stop_with_work() -> list[str]:
    echo_serve.FOLDER.mkdir()
    echo_serve.PORTS.write_text(" ".join(str(port) for port in range(5300, 5312)))
    echo_serve.HELPER.wake(until_done=True)
    wait_until(lambda: len(_report()["holds"]) == 12)
    [running] = control.find()
    assert list(install_helpers.stop(Prefix(Path("/opt/other")))) == []
    return list(install_helpers.stop(Prefix(Path(_program(running.pid)).parent)))


def test_uninstallation_says_what_nothing_attends_to(host: Host) -> None:
    host.run(["ip", "link", "set", "lo", "up"])
    lines = host.call(_stop_with_work)
    listed = ", ".join(str(port) for port in range(5300, 5310))
    assert lines == [
        "helper of echo: ended",
        f"no process renews or serves any more: {listed} and 2 more",
    ]

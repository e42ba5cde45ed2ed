"""If systemd runs, an installation writes units for the warm server; systemctl records calls."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.service import control as helpers
from cni.service import units as helper_units
from cni.warm import control, units
from plugin_table import ROOT
from tests.netns.bundled_host import BINDIR, BRIDGE, PREFIX, empty_opt
from tests.support import scene
from tests.warm.test_warm_control import Systemd

if TYPE_CHECKING:
    import subprocess

    from cni.testing import Host

__all__ = ["empty_opt"]

SOCKETS = "".join(f" pycni-helper@{name}.socket" for name in helpers.list_helpers())
SERVICES = SOCKETS.replace(".socket", ".service")
NAMES = f"pycni-warm.socket pycni-warm.service{SOCKETS}"
FILES = [
    "pycni-helper@.service",
    "pycni-helper@.socket",
    "pycni-warm.service",
    "pycni-warm.socket",
    "pycni-watch.service",
]
COMMANDS = {
    "pycni-helper": rf"{PREFIX}/bin/pycni helper ",
    "pycni-warm.": rf"{BINDIR}/[\w-]+ --warm-",
    "pycni-watch.": rf"ExecStart={PREFIX}/bin/pycni watch\n",
}
STARTED = [
    "daemon-reload",
    f"enable {NAMES}",
    "restart pycni-warm.socket",
    # A helper that runs hands over to the new build.
    f"start pycni-warm.service{SOCKETS}{SERVICES}",
    # It is the administrator who enables it.
    "try-restart pycni-watch.service",
]
STOPPED = [f"disable --now {NAMES}{SERVICES} pycni-watch.service", "daemon-reload"]
ENV = {"PATH": "/run/fake:/usr/sbin:/usr/bin:/sbin:/bin"}
_SYSTEMCTL = """#!/bin/sh
echo "$*" >> /run/systemctl
[ "$1" != "$(cat /run/fail 2>/dev/null)" ] || { echo "Failed to $1 unit: it is masked." >&2; exit 1; }
"""


@pytest.fixture
def booted(empty_opt: Host) -> Host:
    """Return a host on which systemd seems to run."""
    host = empty_opt
    host.run(["mkdir", "-p", "/run/systemd/system", "/run/fake", str(units.FOLDER)])
    host.run(["mount", "-t", "tmpfs", "tmpfs", str(units.FOLDER)])
    host.run(
        ["sh", "-c", 'printf %s "$1" > /run/fake/systemctl; chmod 755 /run/fake/systemctl', "sh", _SYSTEMCTL]
    )
    return host


def _do(host: Host, bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # The self-test takes a second of CPU, and has nothing to do with units.
    options = (*options, "--no-self-test") if "--install" in options else options
    return host.place.run([str(bundle / "pycni"), *options], env=ENV, check=False)


def _asked(host: Host) -> list[str]:
    told = host.run(["sh", "-c", "cat /run/systemctl 2>/dev/null; rm -f /run/systemctl"])
    return told.splitlines()


def _written(host: Host) -> list[str]:
    return host.run(["ls", str(units.FOLDER)]).split()


@pytest.mark.usefixtures("bundle")
def test_make_installs_and_removes_the_units(booted: Host) -> None:
    host = booted
    make = ["make", "--silent", "--directory", str(ROOT)]
    assert f"{', '.join(NAMES.split())}: enabled and started\n" in host.run([*make, "install"], env=ENV)
    assert _asked(host) == STARTED
    assert SOCKETS
    assert _written(host) == FILES
    texts = {name: host.run(["cat", str(units.FOLDER / name)]) for name in FILES}
    for name in FILES:
        [command] = [each for start, each in COMMANDS.items() if name.startswith(start)]
        assert re.search(command, texts[name]), name
    # A helper starts at the first request to its socket.
    assert [each for each in FILES if "\n[Install]\n" not in texts[each]] == [helper_units.SERVICE_NAME]
    # Again: they are the installation's to write.
    host.run([*make, "install"], env=ENV)
    assert _asked(host) == STARTED
    told = host.run([*make, "uninstall"], env=ENV)
    units_removed = "pycni-helper@.socket, pycni-helper@.service, pycni-watch.service"
    assert f"{units_removed}: stopped, disabled and removed\n" in told
    assert _asked(host) == STOPPED
    assert _written(host) == []


def test_systemd_finds_nothing_wrong_with_them(booted: Host, bundle: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    host = booted
    assert _do(host, bundle, "--install").returncode == 0
    host.run(["sh", "-c", f"cp {units.FOLDER}/* {tmp_path}"])
    done = host.place.run(["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], check=False)
    assert (done.returncode, re.findall(r".*pycni.*", done.stderr)) == (0, [])


def test_no_units_where_they_are_not_wanted_or_cannot_be(booted: Host, bundle: Path) -> None:
    host = booted
    assert "no systemd units: UNITS=no\n" in _do(host, bundle, "--install", "--units=no").stdout
    make = ["make", "--silent", "--directory", str(ROOT), "install", "UNITS=no"]
    assert "no systemd units: UNITS=no\n" in host.run(make, env=ENV)
    assert "no systemd units: DESTDIR is set\n" in _do(host, bundle, "--install", "--destdir=/opt/x").stdout
    told = _do(host, bundle, "--install", "--bindir=/opt/a b").stdout
    assert "no systemd units: /opt/a b has characters that a unit cannot have in a path\n" in told
    assert _do(host, bundle, "--uninstall", "--prefix=/opt/a b/pycni").returncode == 0
    host.run(["rmdir", "/run/systemd/system"])
    assert "no systemd units: systemd does not run here\n" in _do(host, bundle, "--install").stdout
    assert (_asked(host), _written(host)) == ([], [])


def test_units_of_somebody_else_are_left_alone(booted: Host, bundle: Path) -> None:
    host = booted
    path = units.FOLDER / units.SERVICE_NAME
    text = units.units(BINDIR / scene.LOOPBACK)[units.SERVICE_NAME]
    host.call(path.write_text, text)
    told = _do(host, bundle, "--install").stdout
    assert f"{path}: was not written by an installation, and is not changed\n" in told
    told = _do(host, bundle, "--uninstall").stdout
    assert f"{path}: starts a removed program: disable the unit and remove it\n" in told
    assert _written(host) == [units.SERVICE_NAME]
    assert host.run(["cat", str(path)]) == text


def test_another_installation_keeps_its_units(booted: Host, bundle: Path) -> None:
    host = booted
    assert _do(host, bundle, "--install").returncode == 0
    assert _do(host, bundle, "--install", "--bindir=/opt/other", "--units=no").returncode == 0
    _asked(host)
    assert _do(host, bundle, "--uninstall", "--prefix=/opt/other/pycni").returncode == 0
    assert _asked(host) == []
    assert len(_written(host)) == 5


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "restart", "start"])
def test_a_systemd_that_refuses_is_told_after_all_else_is_in_place(
    booted: Host, bundle: Path, verb: str
) -> None:
    host = booted
    host.run(["sh", "-c", f"echo {verb} > /run/fail"])
    done = _do(host, bundle, "--install")
    assert done.returncode == 1
    assert f"systemctl {verb}" in done.stderr
    assert f"Failed to {verb} unit: it is masked." in done.stderr
    assert "UNITS=no installs without units" in done.stderr
    host.plugin(scene.LOOPBACK, "VERSION", {}).must()
    host.run(["rm", "/run/fail"])
    assert _do(host, bundle, "--uninstall").returncode == 0
    assert _written(host) == []


def test_a_systemd_that_refuses_to_stop_keeps_everything(booted: Host, bundle: Path) -> None:
    host = booted
    assert _do(host, bundle, "--install").returncode == 0
    host.run(["sh", "-c", "echo disable > /run/fail"])
    done = _do(host, bundle, "--uninstall")
    assert (done.returncode, "systemctl disable --now" in done.stderr) == (1, True)
    host.plugin(scene.LOOPBACK, "VERSION", {}).must()
    host.run(["rm", "/run/fail"])
    assert _do(host, bundle, "--uninstall").returncode == 0


def _boot(launcher: Path) -> int:
    """Do what systemd does at boot: bind the socket, and start the service without a call."""
    # DirectoryMode= of the socket.
    for folder in (Path("/run/pycni"), Path("/run/pycni/warm")):
        folder.mkdir(mode=0o700, exist_ok=True)
    server = Systemd(launcher).start()
    deadline = time.monotonic() + 60
    while not [each for each in control.find() if each.pid == server]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return server


def _requests() -> int:
    [server] = control.find()
    told = control.status(server)
    assert isinstance(told["requests"], int)
    return told["requests"]


def test_the_first_call_after_boot_is_served_by_the_units_server(booted: Host, bundle: Path) -> None:
    host, sandbox = booted, booted.sandbox("c1")
    assert _do(host, bundle, "--install").returncode == 0
    service = host.run(["cat", str(units.FOLDER / units.SERVICE_NAME)])
    assert "WantedBy=multi-user.target" in service
    server = host.call(_boot, BINDIR / scene.INTERFACE)
    host.plugin(scene.INTERFACE, "ADD", BRIDGE, netns=sandbox).must()
    deadline = time.monotonic() + 60
    while host.call(_requests) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [each.pid for each in host.call(control.find)] == [server]
    assert str(Path(f"/proc/{server}/exe").readlink()).startswith(f"{PREFIX}/")
    host.plugin(scene.INTERFACE, "DEL", BRIDGE, netns=sandbox).must()

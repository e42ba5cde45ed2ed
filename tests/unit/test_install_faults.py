"""An installation that meets others, folders that are not its own, or what cannot be removed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import install_disk
from cni.testing import Host, warm, why_no_namespaces
from cni.warm import control, units
from install_tree import InstallError, Prefix
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BUILD = "0.1.0-0123456789ab"


def run(program: Path, what: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Install below a folder, or uninstall."""
    places = [f"--prefix={root}/opt", f"--bindir={root}/bin", f"--confdir={root}/net.d"]
    places += ["--units=no"] if what == "--install" else []
    argv: Sequence[str | Path] = [program / "pycni", what, *places, *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a small folder that the installer accepts as a bundle."""
    bundle = tmp_path / "bundle"
    (bundle / "lib").mkdir(parents=True)
    (bundle / "lib/module.pyc").write_bytes(b"code")
    (bundle / "build").write_text(BUILD)
    return bundle


@pytest.fixture
def host(bundle: Path, tmp_path: Path) -> Iterator[Host]:
    """Yield a host with the suite installed below `tmp_path`."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    assert run(bundle, "--install", tmp_path).returncode == 0
    with Host(tmp_path / "bin") as host:
        warm.set_up(host.place)
        yield host


def test_who_waited_for_a_removed_installation_makes_a_new_one(small: Path, tmp_path: Path) -> None:
    prefix = Prefix(tmp_path / "opt")
    inside, is_looked_at = threading.Event(), threading.Event()

    def install() -> None:
        with Prefix(prefix.path).locked(make=True):
            inside.set()
            prefix.ensure_tree(small)
            is_looked_at.wait(60)

    waiting = threading.Thread(target=install)
    with prefix.locked(make=True):
        prefix.ensure_tree(small)
        waiting.start()
        assert not inside.wait(0.3)
        prefix.remove()
        assert not prefix.path.exists()
    assert inside.wait(60)
    # It holds the lock that the next installation waits for.
    with (prefix.path / "lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    is_looked_at.set()
    waiting.join()
    assert [tree.name for tree in prefix.trees()] == [BUILD]


def test_nothing_is_made_where_nothing_is_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    with (
        pytest.raises(InstallError, match="nothing is installed"),
        Prefix(tmp_path / "opt").locked(make=False),
    ):
        pytest.fail("it was locked")
    assert list((tmp_path / "opt").iterdir()) == []
    with pytest.raises(FileNotFoundError), install_disk.locked(tmp_path / "none", make=False):
        pytest.fail("it was locked")


def test_a_prefix_that_others_use_keeps_what_is_theirs(small: Path, tmp_path: Path) -> None:
    """PREFIX=/usr/local, PREFIX=/opt."""
    theirs = ["bin/tool", "project/build", "project/pycni", "build", ".new-folder/file"]
    root = tmp_path / "usr"
    for name in theirs:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("theirs")
    prefix = Prefix(root)
    with prefix.locked(make=True):
        tree = prefix.ensure_tree(small)
        (root / "bin/pycni").write_text("ours")
        prefix.record("bindirs", tmp_path)
        assert prefix.prune(tree) == []
        assert prefix.trees() == [tree]
        prefix.remove()
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == set(theirs)


def test_a_part_that_cannot_be_removed_is_told_and_goes_later(
    bundle: Path, host: Host, tmp_path: Path
) -> None:
    """Even where another process would have to uninstall, as its own is half gone."""
    busy = tmp_path / "opt" / (bundle / "build").read_text() / "conf/10-bridge.conflist"
    host.run(["mount", "--bind", "/dev/null", str(busy)])
    places = [f"--prefix={tmp_path}/opt", f"--bindir={tmp_path}/bin"]
    done = host.place.run([str(bundle / "pycni"), "--uninstall", *places], check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("could not uninstall: Device or resource busy: ")
    assert f"{tmp_path}/opt: removed" not in done.stdout
    host.run(["umount", str(busy)])
    assert f"{tmp_path}/opt: removed" in host.run([str(bundle / "pycni"), "--uninstall", *places])
    assert not (tmp_path / "opt").exists()


def test_a_server_that_does_not_end_is_named_and_keeps_its_files(
    bundle: Path, host: Host, tmp_path: Path
) -> None:
    host.plugin(scene.LOOPBACK, "VERSION", {}).must()
    [server] = host.call(control.find)
    os.kill(server.pid, signal.SIGSTOP)
    uninstall = [str(tmp_path / "opt/bin/pycni"), "--uninstall", f"--bindir={tmp_path}/bin"]
    try:
        done = host.place.run(uninstall, check=False)
        assert (done.returncode, done.stderr) == (
            1,
            f"warm servers have not ended, kill them and uninstall again: {server.pid}\n",
        )
        assert "ended" not in done.stdout
        assert (tmp_path / "opt" / server.build / "bin/python3").exists()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    # The signal to end had been sent to it.
    assert f"{tmp_path}/opt: removed" in host.run(uninstall)
    assert host.call(control.find) == []
    assert not (tmp_path / "opt").exists()


def test_units_that_start_what_is_gone_are_named(bundle: Path, tmp_path: Path) -> None:
    root = [f"--destdir={tmp_path}/root", "--prefix=/opt/pycni", "--bindir=/opt/cni/bin"]
    folder = tmp_path / f"root{units.FOLDER}"
    folder.mkdir(parents=True)
    assert run(bundle, "--install", tmp_path, *root).returncode == 0
    (folder / units.SOCKET_NAME).write_text(
        units.units(Path("/opt/cni/bin") / scene.LOOPBACK)[units.SOCKET_NAME]
    )
    (folder / units.SERVICE_NAME).write_text(units.units(Path("/usr/bin/other"))[units.SERVICE_NAME])
    done = run(bundle, "--uninstall", tmp_path, *root)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(str(units.FOLDER))]
    shown = f"{units.FOLDER / units.SOCKET_NAME}"
    assert lines == [f"{shown}: starts a removed program: disable the unit and remove it"]
    # The file may belong to another program by now.
    assert len(list(folder.iterdir())) == 2

"""What `make install` puts in place: it works with nothing around it, and nothing of others is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import install_tree
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator


class Places(NamedTuple):
    """Where a test installs to."""

    root: Path

    @property
    def bindir(self) -> Path:
        return self.root / "bin"

    @property
    def prefix(self) -> Path:
        return self.root / "opt"

    @property
    def confdir(self) -> Path:
        return self.root / "net.d"

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        places = [f"--{name}={getattr(self, name)}" for name in ("bindir", "prefix", "confdir")]
        command = [sys.executable, str(ROOT / "build/install.py"), *places, *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def _call(executable: Path, verb: str = "VERSION", cwd: str = "/") -> dict[str, object]:
    """Call a plugin with no environment at all but the verb."""
    done = subprocess.run(
        [executable],
        input="{}",
        capture_output=True,
        text=True,
        env={"CNI_COMMAND": verb},
        cwd=cwd,
        check=False,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Install once; tests that change what is installed put it back."""
    places = Places(tmp_path_factory.mktemp("install"))
    done = places.install("--conf", "10-bridge")
    assert done.returncode == 0, done.stderr
    yield places
    removed = places.install("--uninstall")
    assert removed.returncode == 0, removed.stderr
    assert not places.prefix.exists()
    assert list(places.bindir.iterdir()) == []


def test_every_plugin_answers_with_an_empty_environment(places: Places) -> None:
    for name in packages(declared()):
        assert "1.1.0" in _call(places.bindir / name)["supportedVersions"]  # type: ignore[operator]


def test_all_names_are_one_file(places: Places) -> None:
    files = {(path.stat().st_dev, path.stat().st_ino) for path in places.bindir.iterdir()}
    assert len(files) == 1


def test_nothing_is_imported_from_the_sources_or_a_virtual_environment(places: Places) -> None:
    script = (places.bindir / "loopback").read_text()
    assert str(ROOT) not in script
    interpreter = Path(script.splitlines()[0].removeprefix("#!").split()[0])
    assert interpreter.is_absolute()
    assert not interpreter.is_symlink()


def test_a_tree_is_compiled_when_it_is_made(places: Places) -> None:
    [tree] = install_tree.list_trees(places.prefix)
    sources = {path.with_suffix("").name for path in (tree / "cni").glob("*.py")}
    assert {path.name.split(".")[0] for path in (tree / "cni/__pycache__").iterdir()} == sources


def test_a_second_installation_of_the_same_sources_makes_no_second_tree(places: Places) -> None:
    assert places.install().returncode == 0
    assert len(install_tree.list_trees(places.prefix)) == 1


def test_a_call_in_flight_survives_an_installation(places: Places) -> None:
    with subprocess.Popen(
        [places.bindir / "loopback"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/"},
    ) as call:
        assert places.install().returncode == 0
        answer, _ = call.communicate('{"cniVersion": "1.1.0", "name": "", "type": "loopback"}')
    assert json.loads(answer)["msg"] == "missing network name"


def test_a_replaced_tree_stays_until_it_is_old(tmp_path: Path) -> None:
    for name in ("1.0-old", "1.0-replaced", "1.0-new"):
        (tmp_path / name / "cni").mkdir(parents=True)
        (tmp_path / name / "cni/plugins.json").touch()
    (tmp_path / ".new-halfway").mkdir()
    install_tree.prune(tmp_path, "1.0-new")
    assert len(install_tree.list_trees(tmp_path)) == 3
    os.utime(tmp_path / "1.0-old/.replaced", (0, 0))
    install_tree.prune(tmp_path, "1.0-new")
    assert [tree.name for tree in install_tree.list_trees(tmp_path)] == ["1.0-new", "1.0-replaced"]
    assert not (tmp_path / ".new-halfway").exists()


def test_a_network_is_copied_when_asked_for(places: Places) -> None:
    assert [path.name for path in places.confdir.iterdir()] == ["10-bridge.conflist"]


def test_a_network_that_the_user_changed_is_left_alone(places: Places) -> None:
    network = places.confdir / "10-bridge.conflist"
    shipped = network.read_bytes()
    network.write_text("mine")
    done = places.install("--conf", "10-bridge")
    assert done.returncode == 1
    assert "10-bridge.conflist has other contents and was left alone" in done.stderr
    assert network.read_text() == "mine"
    network.write_bytes(shipped)
    assert places.install("--conf", "10-bridge").returncode == 0


def test_an_unknown_network_is_refused_with_the_known_ones(places: Places) -> None:
    done = places.install("--conf", "nothing")
    assert done.returncode == 1
    assert "10-bridge" in done.stderr


def test_another_suites_plugin_comes_back_when_ours_goes(places: Places) -> None:
    theirs = places.bindir / "loopback"
    theirs.unlink()
    theirs.write_text("#!/bin/sh\necho theirs\n")
    assert places.install().returncode == 0
    assert "1.1.0" in str(_call(theirs))
    assert places.install("--uninstall").returncode == 0
    assert theirs.read_text() == "#!/bin/sh\necho theirs\n"
    theirs.unlink()
    assert places.install().returncode == 0


def test_another_prefix_keeps_its_executables(places: Places, tmp_path: Path) -> None:
    assert places.install(f"--prefix={tmp_path}", "--uninstall").returncode == 0
    assert "1.1.0" in str(_call(places.bindir / "loopback"))


def test_the_command_is_linked_only_where_asked(places: Places) -> None:
    sbindir = places.root / "sbin"
    assert places.install(f"--sbindir={sbindir}").returncode == 0
    done = subprocess.run([sbindir / "pycni", "--help"], capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    assert places.install(f"--sbindir={sbindir}", "--uninstall").returncode == 0
    assert not list(sbindir.iterdir())
    assert places.install().returncode == 0


def test_destdir_is_in_no_path_that_is_used_later(places: Places, tmp_path: Path) -> None:
    options = ["--bindir=/opt/cni/bin", "--prefix=/opt/pycni", "--confdir=/etc/cni/net.d"]
    done = places.install(f"--destdir={tmp_path}", *options)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in (tmp_path / "opt/cni/bin/loopback").read_text()

"""The files that `make install` writes work on their own, and files of other programs remain."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from plugin_table import ROOT, declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Places(NamedTuple):
    """The directories and the bundle of an installation."""

    root: Path
    bundle: Path

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
        """Install without the self-test, which takes a second of CPU."""
        return self._do("--install", "--no-self-test", *options)

    def uninstall(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self._do("--uninstall", *options)

    def _do(self, what: str, *options: str) -> subprocess.CompletedProcess[str]:
        places = [f"--{name}={getattr(self, name)}" for name in ("bindir", "prefix", "confdir")]
        units = ["--units=no"] if what == "--install" else []
        return _run([self.bundle / "pycni", what, *places, *units, *options])

    def trees(self) -> list[str]:
        return sorted(path.parent.name for path in self.prefix.glob("*/build"))


def _run(argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


def _call(executable: Path) -> dict[str, object]:
    """Ask a plugin for its versions with no environment at all beyond what that takes."""
    done = subprocess.run(
        [executable],
        input="{}",
        capture_output=True,
        text=True,
        env={"CNI_COMMAND": "VERSION", "PYCNI_WARM": "off"},
        cwd="/",
        check=False,
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Places]:
    """Install once; tests that change what is installed put it back."""
    places = Places(tmp_path_factory.mktemp("install"), bundle)
    done = places.install("--conf", "10-bridge")
    assert done.returncode == 0, done.stderr
    yield places
    removed = places.uninstall()
    assert removed.returncode == 0, removed.stderr
    assert not places.prefix.exists()
    assert list(places.bindir.iterdir()) == []


def _other_build(bundle: Path, folder: Path, name: str = "0.2.0-other") -> Path:
    """Make a bundle that is another build by its name."""
    other = folder / "other"
    shutil.copytree(bundle, other, copy_function=shutil.copy2)
    (other / "build").write_text(name)
    return other


def test_every_plugin_answers_with_an_empty_environment(places: Places) -> None:
    for name in packages(declared()):
        assert "1.1.0" in _call(places.bindir / name)["supportedVersions"]  # type: ignore[operator]


def test_each_name_is_a_file_of_its_own(places: Places) -> None:
    files = {(path.stat().st_dev, path.stat().st_ino) for path in places.bindir.iterdir()}
    assert len(files) == len(packages(declared()))


def test_nothing_installed_names_the_sources(places: Places) -> None:
    files = [path for path in places.root.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if str(ROOT).encode() in path.read_bytes()] == []


def test_a_second_installation_of_the_same_build_makes_no_second_tree(places: Places) -> None:
    assert places.install().returncode == 0
    assert places.trees() == [(places.bundle / "build").read_text()]


def test_a_call_in_flight_survives_an_upgrade(places: Places, tmp_path: Path) -> None:
    other = places._replace(bundle=_other_build(places.bundle, tmp_path))
    with subprocess.Popen(
        [places.bindir / scene.LOOPBACK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/", "PYCNI_WARM": "off"},
    ) as call:
        # The second one would remove the first build, did the call not run from it.
        assert other.install().returncode == other.install().returncode == 0
        assert len(places.trees()) == 2
        answer, _ = call.communicate('{"cniVersion": "1.1.0", "name": ""}')
    assert json.loads(answer)["msg"] == "missing network name"
    assert "nothing runs from it any more, removed" in other.install().stdout
    assert places.trees() == ["0.2.0-other"]
    assert places.install().returncode == places.install().returncode == 0
    assert len(places.trees()) == 1


def test_a_build_stays_while_another_bindir_has_its_plugins(places: Places, tmp_path: Path) -> None:
    second = tmp_path / "bin"
    assert places.install(f"--bindir={second}").returncode == 0
    other = places._replace(bundle=_other_build(places.bundle, tmp_path))
    assert other.install().returncode == other.install().returncode == 0
    assert "1.1.0" in str(_call(second / scene.LOOPBACK))
    assert places.uninstall().returncode == 0
    assert list(second.iterdir()) == []
    assert places.install().returncode == 0


def test_a_plugin_that_a_build_no_longer_has_goes(places: Places, tmp_path: Path) -> None:
    other = _other_build(places.bundle, tmp_path)
    (other / "plugins.json").write_text(json.dumps({scene.LOOPBACK: packages(declared())[scene.LOOPBACK]}))
    assert places._replace(bundle=other).install().returncode == 0
    assert [path.name for path in places.bindir.iterdir()] == [scene.LOOPBACK]
    assert places.install().returncode == places.install().returncode == 0


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
    theirs = places.bindir / scene.LOOPBACK
    theirs.unlink()
    theirs.write_text("#!/bin/sh\necho theirs\n")
    assert places.install().returncode == 0
    assert "1.1.0" in str(_call(theirs))
    assert places.uninstall().returncode == 0
    assert theirs.read_text() == "#!/bin/sh\necho theirs\n"
    theirs.unlink()
    assert places.install().returncode == 0


def test_another_prefix_keeps_its_executables(places: Places, tmp_path: Path) -> None:
    assert places.install(f"--prefix={tmp_path}", f"--bindir={tmp_path}/bin").returncode == 0
    assert places.uninstall(f"--prefix={tmp_path}").returncode == 0
    assert "1.1.0" in str(_call(places.bindir / scene.LOOPBACK))


def test_there_is_nothing_to_uninstall_where_nothing_is_installed(places: Places, tmp_path: Path) -> None:
    done = places.uninstall(f"--prefix={tmp_path}/none")
    assert done.returncode == 1
    assert done.stderr == f"nothing is installed in {tmp_path}/none\n"


def test_the_command_is_linked_only_where_asked(places: Places) -> None:
    link = places.root / "sbin/pycni"
    assert places.install(f"--sbindir={link.parent}").returncode == 0
    assert "Attach network namespaces" in _run([link, "--help"]).stdout
    # By itself it knows where it is.
    done = _run([link, "--uninstall"])
    assert done.returncode == 0, done.stderr
    assert not list(link.parent.iterdir())
    assert not places.prefix.exists()
    assert places.install().returncode == 0


def test_destdir_is_in_no_path_that_is_used_later(places: Places, tmp_path: Path) -> None:
    options = ["--bindir=/opt/cni/bin", "--prefix=/opt/pycni", "--confdir=/etc/cni/net.d"]
    done = places.install(f"--destdir={tmp_path}", *options)
    assert done.returncode == 0, done.stderr
    for path in [tmp_path / "opt/cni/bin" / scene.LOOPBACK, tmp_path / "opt/pycni/bin/pycni"]:
        assert str(tmp_path).encode() not in path.read_bytes()

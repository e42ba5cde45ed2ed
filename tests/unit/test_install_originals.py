"""Plugins of another suite that had the names before: whatever is done, they are there or come back."""

from __future__ import annotations

import filecmp
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.state import executables
from tests.support import scene
from tests.support.installer import KILLED, Installer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The installer does the same for each name: three are a first one, one between and a last one. Each further
# name adds points to be killed at, and makes each point more expensive.
NAMES = (scene.INTERFACE, "one", "two")
OTHERS = ("first", "second")
BUILD = "0.1.0-0123456789ab"
# A program with the places that the installer writes into, which is all that it looks at. The compiled one is
# eighty times as large.
LAUNCHER = b"".join(b"@PYCNI-%s@:%s\n" % (name, bytes(256)) for name in (b"TREE", b"BELOW", b"BUILD"))


class Node(NamedTuple):
    """A folder of plugins of another suite, and what the installer takes for a bundle."""

    root: Path
    bundle: Path
    installer: Installer

    @property
    def bindir(self) -> Path:
        return self.root / "bin"

    def prefix(self, number: int) -> Path:
        return self.root / f"p{number}"

    def install(self, number: int, *, die_at: int = 0, interrupt_at: int = 0) -> tuple[int, str]:
        return self._do(["--install", "--units=no", "--no-self-test"], number, die_at, interrupt_at)

    def uninstall(self, number: int, *, die_at: int = 0) -> tuple[int, str]:
        return self._do(["--uninstall", "--attached=leave"], number, die_at)

    def _do(self, what: Sequence[str], number: int, die_at: int, interrupt_at: int = 0) -> tuple[int, str]:
        """Run the installer, killed at one of the points if that is asked for."""
        places = [
            f"--bindir={self.bindir}",
            f"--prefix={self.prefix(number)}",
            f"--confdir={self.root}/net.d",
        ]
        told = self.root / "told"
        arguments = [*what, *places]
        status = self.installer.run(
            self.bundle, arguments, told, self.root, die_at=die_at, interrupt_at=interrupt_at
        )
        return status, told.read_text()

    def found(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.bindir.iterdir() if path.is_file()}

    def originals(self) -> dict[str, bytes]:
        return {name: f"#!/bin/sh\necho {name} of Go\n".encode() for name in (*NAMES, *OTHERS)}

    def snapshot(self) -> dict[str, bytes]:
        files = [
            path for path in self.root.rglob("*") if path.is_file() and path.name not in {"told", "lock"}
        ]
        return {str(path): path.read_bytes() for path in files}

    def assert_nothing_is_lost(self) -> None:
        """Each plugin is whole, ours or the original; each original is in place or kept."""
        kept = {path.name: path.read_bytes() for path in self.root.glob("p?/replaced/**/*") if path.is_file()}
        for name, original in self.originals().items():
            program = (self.bindir / name).read_bytes()
            assert program == original or executables.launched_tree(program)
            assert original in (program, kept.get(name))

    def assert_as_before(self) -> None:
        assert self.found() == self.originals()
        assert all(path.stat().st_mode & 0o777 == 0o755 for path in self.bindir.iterdir())
        assert sorted(path.name for path in self.root.iterdir() if path.is_dir()) == ["bin"]


class Saved:
    """The files of a folder, to put it back as it was: shutil takes ten times as long."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = [(folder, os.lstat(folder).st_mode) for folder, _, _ in os.walk(root)]
        paths = [path for path in root.rglob("*") if not path.is_dir()]
        assert not any(path.is_symlink() for path in paths)
        self._files = [(str(path), path.stat().st_mode, path.read_bytes()) for path in paths]

    def restore(self) -> None:
        """Replace the folder."""
        shutil.rmtree(self._root)
        for path, mode in self._folders:
            os.mkdir(path)  # noqa: PTH102 - as the class says
            os.chmod(path, mode)  # noqa: PTH101
        for path, mode, content in self._files:
            file = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(file, content)
            os.fchmod(file, mode)
            os.close(file)


@pytest.fixture(scope="session")
def installer() -> Iterator[Installer]:
    with Installer() as installer:
        yield installer


@pytest.fixture
def node(tmp_path: Path, installer: Installer) -> Node:
    """Return a node with a whole suite of another kind."""
    node = Node(tmp_path / "node", tmp_path / "bundle", installer)
    node.bindir.mkdir(parents=True)
    for name, text in node.originals().items():
        (node.bindir / name).write_bytes(text)
        (node.bindir / name).chmod(0o755)
    (node.bundle / "conf").mkdir(parents=True)
    (node.bundle / "launcher").write_bytes(LAUNCHER)
    (node.bundle / "build").write_text(BUILD)
    (node.bundle / "plugins.json").write_text(json.dumps(dict.fromkeys(NAMES, "cni_x")))
    return node


ORDERS = [
    [*installed, *(-number for number in removed)]
    for installed in ([1], [1, 2], [1, 2, 1], [1, 2, 2], [1, 1, 2], [1, 2, 1, 2], [1, 2, 3], [1, 2, 3, 1])
    for removed in itertools.permutations(sorted(set(installed)))
]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_prefixes_over_one_folder_in_any_order(node: Node, order: list[int]) -> None:
    """A negative number is an uninstallation."""
    for each in order:
        status, told = node.install(each) if each > 0 else node.uninstall(-each)
        assert status == 0, told
        node.assert_nothing_is_lost()
    node.assert_as_before()


@pytest.mark.parametrize(
    "order", [[1, -1, 2, -2], [1, 2, -2, 1, -1], [1, 2, -1, 1, -2, -1], [1, 2, -2, -1]], ids=str
)
def test_prefixes_that_come_and_go(node: Node, order: list[int]) -> None:
    for each in order:
        status, told = node.install(each) if each > 0 else node.uninstall(-each)
        assert status == 0, told
        node.assert_nothing_is_lost()
    node.assert_as_before()


def test_an_installation_of_hard_links_is_taken_over(node: Node) -> None:
    """Release 0.1.0 had one file under all names."""
    node.install(1)
    for name in NAMES[1:]:
        (node.bindir / name).unlink()
        (node.bindir / name).hardlink_to(node.bindir / NAMES[0])
    assert node.install(2)[0] == 0
    assert len({(node.bindir / name).stat().st_ino for name in NAMES}) == len(NAMES)
    for number in (1, 2):
        assert node.uninstall(number)[0] == 0
    node.assert_as_before()


def test_an_overwritten_plugin_stops_the_uninstallation(node: Node) -> None:
    node.install(1)
    (node.bindir / scene.INTERFACE).write_bytes(b"a newer one of Go")
    before = node.snapshot()
    status, told = node.uninstall(1)
    assert status == 1
    saved = node.prefix(1) / f"replaced{node.bindir}/{scene.INTERFACE}"
    assert f"{saved}: another program has replaced {node.bindir}/{scene.INTERFACE} since" in told
    assert "Move each one to where it belongs, or delete it. Then uninstall again." in told
    assert node.snapshot() == before
    saved.rename(node.bindir / scene.INTERFACE)
    assert node.uninstall(1)[0] == 0
    node.assert_as_before()


def test_an_original_that_has_been_copied_back_is_no_conflict(node: Node) -> None:
    node.install(1)
    shutil.copy(node.prefix(1) / f"replaced{node.bindir}/{scene.INTERFACE}", node.bindir / scene.INTERFACE)
    assert node.uninstall(1)[0] == 0
    node.assert_as_before()


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_folder_that_is_gone_stops_the_uninstallation(node: Node, *, is_deleted: bool) -> None:
    node.install(1)
    aside = node.root / "aside"
    node.bindir.rename(aside)
    before = node.snapshot()
    status, told = node.uninstall(1)
    assert (status, f"there is no {node.bindir} to restore it to" in told) == (1, True)
    assert node.snapshot() == before
    if is_deleted:
        shutil.rmtree(aside)
        node.bindir.mkdir()
        assert node.uninstall(1)[0] == 0
        assert set(node.found()) == set(NAMES)
    else:
        aside.rename(node.bindir)
        assert node.uninstall(1)[0] == 0
        node.assert_as_before()


def test_a_plugin_that_somebody_deleted_comes_back(node: Node) -> None:
    node.install(1)
    (node.bindir / scene.INTERFACE).unlink()
    assert node.uninstall(1)[0] == 0
    node.assert_as_before()


def test_a_prefix_that_somebody_deleted_leaves_no_launcher_behind(node: Node) -> None:
    node.install(1)
    kept = node.prefix(1) / "replaced"
    node.install(2)
    assert not [path for path in kept.rglob("*") if path.is_file()]
    shutil.rmtree(node.prefix(1))
    assert node.uninstall(2)[0] == 0
    node.assert_as_before()


def test_a_newer_original_comes_back_and_the_older_one_is_kept(node: Node) -> None:
    node.install(1)
    (node.bindir / scene.INTERFACE).write_bytes(b"newer")
    node.install(1)
    status, told = node.uninstall(1)
    assert status == 0
    assert (node.bindir / scene.INTERFACE).read_bytes() == b"newer"
    older = node.prefix(1) / f"replaced/older{node.bindir}/{scene.INTERFACE}"
    assert f"{older}: kept, an original that a later one has superseded" in told
    assert older.read_bytes() == node.originals()[scene.INTERFACE]


def test_links_come_back_as_links(node: Node) -> None:
    """k3s has one program `cni` with links to it."""
    (node.bindir / "cni").write_bytes(b"all of them")
    for name in NAMES[:2]:
        (node.bindir / name).unlink()
        (node.bindir / name).symlink_to("cni" if name == scene.INTERFACE else "nowhere")
    assert node.install(1)[0] == 0
    assert executables.launched_tree((node.bindir / scene.INTERFACE).read_bytes())
    assert (node.bindir / "cni").read_bytes() == b"all of them"
    assert node.uninstall(1)[0] == 0
    assert [str((node.bindir / name).readlink()) for name in NAMES[:2]] == ["cni", "nowhere"]


def test_a_users_copy_under_another_name_goes_on_with_each_build(node: Node) -> None:
    node.install(1)
    shutil.copy(node.bindir / scene.INTERFACE, node.bindir / f"cnv-{scene.INTERFACE}")
    (node.bindir / f"link-{scene.INTERFACE}").symlink_to(scene.INTERFACE)
    (node.bundle / "build").write_text("0.2.0-abcdef012345")
    assert node.install(1)[0] == 0
    assert filecmp.cmp(node.bindir / scene.INTERFACE, node.bindir / f"cnv-{scene.INTERFACE}", shallow=False)
    assert (node.bindir / f"link-{scene.INTERFACE}").is_symlink()
    assert node.uninstall(1)[0] == 0
    node.assert_as_before()


@pytest.mark.long
@pytest.mark.parametrize("before", [[], [2]], ids=str)
@pytest.mark.parametrize("what", ["install", "uninstall"])
def test_whatever_is_killed_loses_nothing(node: Node, what: str, before: list[int]) -> None:
    """Installations and uninstallations of prefix 1, after others, killed before each change in turn."""
    for number in [*before, *([1] if what == "uninstall" else [])]:
        assert node.install(number)[0] == 0
    saved = Saved(node.root)
    for point in itertools.count(1):
        saved.restore()
        run = node.install if what == "install" else node.uninstall
        status, told = run(1, die_at=point)
        node.assert_nothing_is_lost()
        if status != KILLED:
            assert status == 0, told
            break
        # The next one goes on, and then all can be removed.
        if what == "install" or (node.prefix(1) / "installed.json").exists():
            assert run(1)[0] == 0
        node.assert_nothing_is_lost()
        for number in {*before, 1}:
            if (node.prefix(number) / "installed.json").exists():
                status, told = node.uninstall(number)
                assert status == 0, told
        assert node.found() == node.originals()
    assert point > 20


@pytest.mark.parametrize("before", [[], [1], [2]], ids=str)
def test_an_interrupt_leaves_plugins_that_work(node: Node, before: list[int]) -> None:
    """From the keyboard, before each change in turn: what is undone then must fit what is in place."""
    for number in before:
        assert node.install(number)[0] == 0
    saved = Saved(node.root)
    (node.bundle / "build").write_text("0.2.0-abcdef012345")
    for point in itertools.count(1):
        saved.restore()
        status, told = node.install(1, interrupt_at=point)
        node.assert_nothing_is_lost()
        for name in NAMES:
            tree = executables.launched_tree((node.bindir / name).read_bytes())
            assert not tree or Path(tree, "build").exists(), (point, told)
        if status == 0:
            break
    assert point > 20

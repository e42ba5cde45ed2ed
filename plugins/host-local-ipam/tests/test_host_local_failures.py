"""Corrupt files, planted files and disks that refuse: a clear error, and nothing left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing.direct import call
from cni.testing.host import Host
from cni.testing.place import why_no_namespaces
from cni_host_local_ipam import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing.answer import Answer

DUAL: dict[str, Any] = {"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/125"}]]}


def run(verb: str, top: Path, container_id: str = "c1", **others: Any) -> Answer:
    ipam = {"type": "host-local", "dataDir": str(top)} | DUAL
    conf = {"cniVersion": "1.1.0", "name": "net", "ipam": ipam} | others
    return call(PLUGIN, verb, conf, container_id=container_id)


def tree(top: Path) -> dict[str, object]:
    """Names below a folder with what they are: content, link target or kind."""
    found: dict[str, object] = {}
    for each in sorted(top.rglob("*")):
        content = each.readlink() if each.is_symlink() else each.read_bytes() if each.is_file() else "other"
        found[str(each.relative_to(top))] = content
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "networks" / "net"
    made.mkdir(parents=True)
    (made / "lock").write_bytes(b"")
    return made


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"10.9.9.9", b"\xff\xfe", b"10.1.0.1/24", b"x" * 100_000]
)
def test_a_corrupt_last_reserved_ip_means_to_start_over(folder: Path, content: bytes) -> None:
    (folder / "last_reserved_ip.0").write_bytes(content)
    assert run("ADD", folder.parent).addresses == ["10.1.0.2", "fd00::2"]
    assert (folder / "last_reserved_ip.0").read_bytes() == b"10.1.0.2"


def test_a_failed_add_puts_a_corrupt_last_reserved_ip_back(folder: Path) -> None:
    (folder / "last_reserved_ip.0").write_bytes(b"rubbish")
    (folder / "last_reserved_ip.1").mkdir()
    before = tree(folder)
    answer = run("ADD", folder.parent)
    assert answer.code == Code.STORE
    assert f"{folder}/last_reserved_ip.1" in answer.msg
    assert tree(folder) == before


def test_lease_files_with_rubbish_take_their_address(folder: Path) -> None:
    (folder / "10.1.0.2").write_bytes(b"\xff\xfe\r\n\r\n\x00")
    (folder / "10.1.0.3").mkdir()
    os.mkfifo(folder / "10.1.0.4")
    (folder / "10.1.0.5").symlink_to("/etc/passwd")
    assert run("ADD", folder.parent).addresses == ["10.1.0.6", "fd00::2"]
    run("CHECK", folder.parent).must()
    run("DEL", folder.parent).must()
    assert set(tree(folder)) >= {"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"}


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink"])
def test_a_requested_address_that_is_no_file_is_reported(folder: Path, kind: str) -> None:
    path = folder / "10.1.0.5"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/passwd")
    before = tree(folder)
    answer = run("ADD", folder.parent, runtimeConfig={"ips": ["10.1.0.5"]})
    assert answer.code == Code.STORE
    assert str(path) in answer.msg
    assert tree(folder) == before


def test_a_planted_lock_is_refused_and_its_target_kept(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(victim)
    for verb in ("ADD", "DEL"):
        answer = run(verb, folder.parent)
        assert answer.code == Code.STORE
        assert f"{folder}/lock" in answer.msg
    assert not victim.exists()


def test_a_planted_last_reserved_ip_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (folder / "last_reserved_ip.0").symlink_to(victim)
    run("ADD", folder.parent).must()
    assert victim.read_bytes() == b"precious"


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "networks").write_bytes(b"")
    answer = run("ADD", tmp_path / "networks")
    assert answer.code == Code.STORE
    assert str(tmp_path / "networks") in answer.msg
    run("DEL", tmp_path / "networks").must()


def test_a_folder_name_that_is_too_long_is_reported(tmp_path: Path) -> None:
    others: dict[str, Any] = {"name": "n" * 300, "cni.dev/valid-attachments": []}
    for verb in ("ADD", "CHECK", "DEL", "GC"):
        answer = run(verb, tmp_path, **others)
        assert answer.code == Code.STORE
        assert "name too long" in answer.msg
    assert not list(tmp_path.iterdir())


def test_a_dangling_link_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "net").symlink_to("/no/such/folder")
    assert run("ADD", tmp_path).code == Code.STORE
    run("DEL", tmp_path).must()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(tmp_path_factory.mktemp("bin")) as made:
        yield made


@pytest.fixture
def disk(host: Host, tmp_path: Path) -> Path:
    """A folder that is a file system of its own inside `host`."""
    host.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)])
    return tmp_path


def fill_disk(top: Path, pages: int) -> None:
    """Leave no more than this many free pages."""
    with (top / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            ballast.truncate(ballast.tell() - 4096 * pages)


@pytest.mark.parametrize("pages", range(6))
@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_is_told_and_nothing_is_left(host: Host, disk: Path, pages: int, *, is_new: bool) -> None:
    """Each step of ADD runs out of room once: the folder, the lock, a lease, its last_reserved_ip."""
    if not is_new:
        host.call(run, "ADD", disk, "c0").must()
    host.call(fill_disk, disk, pages)
    before = host.call(tree, disk)
    answer = host.call(run, "ADD", disk)
    if answer.ok:
        assert pages >= 3
        return
    assert answer.code == Code.STORE
    assert "no space left on device" in answer.msg
    assert host.call(tree, disk) == before
    assert "could not undo" not in answer.stderr
    host.call(run, "DEL", disk).must()


def test_a_read_only_store_is_told_and_del_of_nothing_succeeds(host: Host, disk: Path) -> None:
    host.call(run, "ADD", disk, "c0").must()
    before = host.call(tree, disk)
    host.run(["mount", "-o", "remount,ro", str(disk)])
    answer = host.call(run, "ADD", disk)
    assert answer.code == Code.STORE
    assert "read-only file system" in answer.msg
    assert str(disk) in answer.msg
    status = host.call(run, "STATUS", disk)
    assert status.code == Code.NOT_AVAILABLE
    assert "read-only file system" in status.msg
    host.call(run, "CHECK", disk, "c0").must()
    host.call(run, "DEL", disk, "c9").must()
    held = host.call(run, "DEL", disk, "c0")
    assert held.code == Code.STORE
    assert f"could not remove {disk}/net/" in held.msg
    assert host.call(tree, disk) == before

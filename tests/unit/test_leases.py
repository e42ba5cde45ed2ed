"""The folder of leases, below the plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.ipam.leases import Lease, Leases, parse_last
from cni.request import Attachment

if TYPE_CHECKING:
    from pathlib import Path

OWNER = Attachment("c1", "eth0")
ADDRESS = ip_address("10.1.0.2")


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "networks" / "net")


@pytest.mark.parametrize(
    ("content", "container_id", "ifname"),
    [
        (b"c1\r\neth0", "c1", "eth0"),
        (b" c1\r\neth0\r\n", "c1", "eth0"),
        (b"c1", "c1", ""),
        (b"c1\n", "c1", ""),
        (b"", "", ""),
        (b" \n", "", ""),
    ],
)
def test_both_formats_are_read(leases: Leases, content: bytes, container_id: str, ifname: str) -> None:
    leases.folder.mkdir(parents=True)
    (leases.folder / str(ADDRESS)).write_bytes(content)
    path = f"{leases.folder}/{ADDRESS}"
    assert leases.find(ADDRESS) == Lease(path, container_id, ifname)
    assert leases.list_all() == [Lease(path, container_id, ifname)]
    assert leases.is_reclaimable(ADDRESS) is (not container_id)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("10.1.0.2", ADDRESS),
        ("::ffff:10.1.0.2", ADDRESS),
        ("fd00::2", ip_address("fd00::2")),
        ("10.1.0.2~", None),
        ("fe80::1%eth0", None),
        ("notes", None),
    ],
)
def test_only_names_that_are_addresses_take_one(name: str, address: object) -> None:
    assert Lease(f"/folder/{name}", "c1", "eth0").address == address


def test_reserving_twice_is_refused_and_the_first_holder_kept(leases: Leases) -> None:
    with leases.locked():
        leases.reserve(ADDRESS, OWNER)
        with pytest.raises(CniError) as caught:
            leases.reserve(ADDRESS, Attachment("c2", "eth0"))
    assert caught.value.code == Code.TRY_AGAIN
    assert (leases.folder / "10.1.0.2").read_bytes() == b"c1\r\neth0"


def test_release_takes_only_what_the_attachment_itself_holds(leases: Leases) -> None:
    leases.folder.mkdir(parents=True)
    path = leases.folder / str(ADDRESS)
    for other in (b"c2\r\neth0", b"c1\r\neth1", b"c1", b""):
        path.write_bytes(other)
        leases.release(ADDRESS, OWNER)
        assert path.read_bytes() == other
    path.write_bytes(b"c1\r\neth0")
    leases.release(ADDRESS, OWNER)
    leases.release(ADDRESS, OWNER)
    assert not path.exists()


def test_the_last_address_is_not_restored_over_a_newer_one(leases: Leases) -> None:
    other = ip_address("10.1.0.9")
    with leases.locked():
        leases.write_last(0, other)
        leases.restore_last(0, None, ADDRESS)
        assert leases.read_last(0) == b"10.1.0.9"
        leases.restore_last(0, b"rubbish", other)
        assert leases.read_last(0) == b"rubbish"
        leases.write_last(0, other)
        leases.restore_last(0, None, other)
        assert leases.read_last(0) is None


@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"\xff", b"10.1.0.2/24"])
def test_garbage_is_no_last_address(content: bytes | None) -> None:
    assert parse_last(content) is None


def test_a_last_address_may_end_with_a_newline() -> None:
    assert parse_last(b"10.1.0.2\n") == ADDRESS


def test_folders_made_are_removed_only_when_nothing_is_in_them(leases: Leases, tmp_path: Path) -> None:
    with leases.locked():
        leases.reserve(ADDRESS, OWNER)
    leases.remove_unused()
    assert leases.find(ADDRESS)
    leases.release(ADDRESS, OWNER)
    leases.remove_unused()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_there_is_kept(leases: Leases) -> None:
    leases.folder.mkdir(parents=True)
    with leases.locked():
        pass
    leases.remove_unused()
    assert leases.exists()


def test_a_folder_in_use_by_another_is_kept(leases: Leases) -> None:
    with leases.locked():
        pass
    argv = ["/usr/bin/flock", str(leases.folder / "lock"), "/bin/sh", "-c", "echo; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        leases.remove_unused()
        holder.communicate()
    assert leases.exists()


def test_a_folder_removed_while_waiting_for_its_lock_is_made_anew(leases: Leases) -> None:
    with leases.locked():
        pass
    argv = ["/usr/bin/flock", str(leases.folder / "lock"), "/bin/sh", "-c", "echo; read end"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        child = os.fork()
        if child == 0:
            # The holder ends when no process has its stdin open.
            holder.stdin.close()
            waiting = Leases(leases.folder)
            with waiting.locked():
                waiting.reserve(ADDRESS, OWNER)
            os._exit(0)
        time.sleep(0.1)
        # Both go at once for a process that waits.
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        (leases.folder / "lock").unlink()
        leases.folder.rmdir()
        os.kill(child, signal.SIGCONT)
        holder.stdin.close()
    assert os.waitpid(child, 0)[1] == 0
    assert leases.find(ADDRESS)


def test_a_folder_that_cannot_be_listed_is_reported(leases: Leases, tmp_path: Path) -> None:
    (tmp_path / "networks").write_bytes(b"")
    with pytest.raises(CniError, match="not a directory") as caught:
        leases.list_all()
    assert caught.value.code == Code.STORE

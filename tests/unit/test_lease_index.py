"""A large pool is not read through for each attachment, and what its cache says is never believed."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

import pytest

from cni import lease_index
from cni.leases import Leases
from cni.request import Attachment

if TYPE_CHECKING:
    from pathlib import Path

FIRST = IPv4Address("10.1.0.2")
MANY = lease_index.MANY + 8


def owner(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0")


@pytest.fixture
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setattr(lease_index, "FOLDER", tmp_path / "index")
    made = Leases(tmp_path / "net")
    with made.locked():
        for number in range(MANY):
            made.reserve(FIRST + number, owner(number))
    assert held(made, 3) == ["10.1.0.5"]
    return made


def held(leases: Leases, number: int) -> list[str]:
    with leases.locked():
        return sorted(lease.name for lease in leases.list_held_by(owner(number)))


def is_current(leases: Leases) -> bool:
    return lease_index.LeaseIndex(leases.folder).look()


def test_what_we_change_keeps_the_cache_current(leases: Leases) -> None:
    with leases.locked():
        leases.reserve(ip_address("10.1.1.1"), owner(3))
        leases.write_last(0, ip_address("10.1.1.1"))
    assert is_current(leases)
    assert held(leases, 3) == ["10.1.0.5", "10.1.1.1"]
    with leases.locked():
        for lease in leases.list_held_by(owner(3)):
            leases.remove(lease)
    assert is_current(leases)
    assert held(leases, 3) == []


def test_a_file_of_another_writer_is_found(leases: Leases) -> None:
    (leases.folder / "10.1.2.2").write_bytes(b"c900\r\neth0")
    assert not is_current(leases)
    assert held(leases, 900) == ["10.1.2.2"]
    assert is_current(leases)


def test_a_file_that_another_writer_removed_is_not_held(leases: Leases) -> None:
    (leases.folder / "10.1.0.5").unlink()
    assert held(leases, 3) == []


def test_a_file_that_another_writer_gave_away_is_not_held(leases: Leases) -> None:
    (leases.folder / "10.1.0.5").write_bytes(b"c900\r\neth0")
    assert held(leases, 3) == []


def test_a_lease_of_the_old_format_is_the_containers(leases: Leases) -> None:
    (leases.folder / "10.1.2.2").write_bytes(b"c900")
    assert held(leases, 900) == ["10.1.2.2"]
    assert held(leases, 900) == ["10.1.2.2"]


def test_a_change_that_was_cut_short_makes_the_cache_stale(leases: Leases) -> None:
    with suppress(KeyError), leases.locked():
        leases.reserve(ip_address("10.1.1.1"), owner(3))
        raise KeyError
    assert not is_current(leases)
    assert held(leases, 3) == ["10.1.0.5", "10.1.1.1"]


def test_a_folder_with_subfolders_has_no_cache(leases: Leases) -> None:
    (leases.folder / "more").mkdir()
    (leases.folder / "more" / "10.1.2.2").write_bytes(b"c3\r\neth0")
    assert held(leases, 3) == ["10.1.0.5", "10.1.2.2"]
    assert not is_current(leases)


def test_a_cache_that_lies_is_not_believed(leases: Leases) -> None:
    [folder] = lease_index.FOLDER.iterdir()
    for link in folder.iterdir():
        if link.name != "stamp":
            link.unlink()
            link.symlink_to("10.1.0.9")
    assert held(leases, 3) == []
    assert held(leases, 7) == ["10.1.0.9"]


def test_a_small_pool_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_index, "FOLDER", tmp_path / "index")
    small = Leases(tmp_path / "net")
    with small.locked():
        small.reserve(FIRST, owner(1))
    assert held(small, 1) == [str(FIRST)]
    assert not lease_index.FOLDER.exists()


def test_without_a_place_for_the_cache_all_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(lease_index, "FOLDER", tmp_path / "file" / "index")
    made = Leases(tmp_path / "net")
    with made.locked():
        for number in range(MANY):
            made.reserve(FIRST + number, owner(number))
    assert held(made, 3) == ["10.1.0.5"]

"""A large pool is not read through for each attachment, and its cache counts only while it must be right."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

import pytest

from cni import faults
from cni.ipam import lease_index
from cni.ipam.leases import Leases
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


def test_changes_by_this_suite_keep_the_index_current(leases: Leases) -> None:
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


def links() -> list[Path]:
    return sorted(lease_index.FOLDER.glob("*/*"))


def test_an_index_that_is_wrong_is_not_used(leases: Leases) -> None:
    assert is_current(leases)
    for link in links():
        link.unlink()
        link.symlink_to("10.1.0.9")
    assert not is_current(leases)
    assert held(leases, 3) == ["10.1.0.5"]
    assert held(leases, 7) == ["10.1.0.9"]


def test_a_cache_that_has_lost_a_link_is_not_believed(leases: Leases) -> None:
    """Each of them: one is what is asked for."""
    for link in links()[:5]:
        link.unlink()
        assert not is_current(leases)
        assert [held(leases, number) for number in range(MANY)] == [
            [str(FIRST + number)] for number in range(MANY)
        ]
        assert is_current(leases)


def test_a_folder_that_was_put_back_to_its_old_time_is_not_taken_for_the_old_one(leases: Leases) -> None:
    """Programs that restore or copy files with their times do this."""
    before = leases.folder.stat()
    (leases.folder / "10.1.2.2").write_bytes(b"c900\r\neth0")
    os.utime(leases.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert leases.folder.stat().st_mtime_ns == before.st_mtime_ns
    assert not is_current(leases)
    assert held(leases, 900) == ["10.1.2.2"]


def test_another_folder_of_the_name_is_not_taken_for_this_one(leases: Leases) -> None:
    before = leases.folder.stat()
    leases.folder.rename(leases.folder.with_name("old"))
    leases.folder.mkdir()
    os.utime(leases.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_current(leases)
    assert held(leases, 3) == []


def test_a_change_while_the_cache_is_sealed_makes_it_stale(leases: Leases) -> None:
    """A program that does not take the lock changes the folder after its time was set."""

    def change(name: str) -> None:
        if name == "index.changed":
            (leases.folder / "10.1.2.2").write_bytes(b"c900\r\neth0")

    with leases.locked():
        leases.write_last(0, FIRST)
        faults.arm(change)
    faults.arm(lambda _: None)
    assert not is_current(leases)
    assert held(leases, 900) == ["10.1.2.2"]


def test_likely_addresses_are_read_whatever_the_index_contains(leases: Leases) -> None:
    """A file whose content is replaced in place does not change the folder's time."""
    (leases.folder / "10.1.0.5").write_bytes(b"c900\r\neth0")
    assert is_current(leases)
    with leases.locked():
        assert leases.list_held_by(owner(900)) == []
        [lease] = leases.list_held_by(owner(900), [FIRST + 3, FIRST + 4])
        assert lease.name == "10.1.0.5"
        assert leases.list_held_by(owner(3), [FIRST + 3]) == []


def test_a_crash_at_any_change_of_the_cache_leaves_none_that_is_wrong(leases: Leases) -> None:
    for when in range(1, 12):
        child = os.fork()
        if child == 0:
            left = [when]

            def end(_: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(0)

            faults.arm(end)
            with leases.locked():
                leases.reserve(ip_address(f"10.1.3.{when}"), owner(3))
                for lease in leases.list_held_by(owner(4)):
                    leases.remove(lease)
            os._exit(1)
        # All points but the last one's are passed.
        assert os.waitpid(child, 0)[1] in {0, 1 << 8}
        asked = Leases(leases.folder)
        everything = asked.list_all()
        for number in range(MANY):
            expected = sorted(each.name for each in everything if each.is_held_by(owner(number)))
            assert sorted(each.name for each in asked.list_of(owner(number))) == expected
        held(leases, 3)


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

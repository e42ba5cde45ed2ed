"""State in /run/pycni ends with the boot, whatever module or plugin keeps it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cni.state import boot
from cni.state.lock import locked

if TYPE_CHECKING:
    from cni.testing import Host

STATE = Path("/run/pycni")
STATE_FILES = ("hostports/by-owner/x", "leases/x", "a-plugin-of-tomorrow/deep/er/x")


def fill() -> None:
    """Write what modules keep: files, folders, links, locks; and what the warm server keeps."""
    for name in (*STATE_FILES, "warm/log", "locks/br0.lock"):
        path = STATE / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text("old")
    (STATE / "mixed").mkdir(mode=0o700)
    (STATE / "mixed" / "x").write_text("old")
    (STATE / "mixed" / "x.lock").touch()
    (STATE / "top.lock").touch()
    (STATE / "kept").write_text("old")
    outside = Path("/run/outside")
    outside.mkdir()
    (outside / "x").write_text("old")
    (STATE / "link").symlink_to(outside)
    (STATE / "leases" / "link").symlink_to(outside)


def list_state() -> set[str]:
    return {str(path.relative_to(STATE)) for path in STATE.rglob("*") if path.is_symlink() or path.is_file()}


def test_another_boot_drops_the_state_of_every_module(host: Host) -> None:
    def run() -> None:
        fill()
        (STATE / "boot").write_text("another\n")
        assert boot.is_earlier(STATE)
        assert boot.drop_earlier(STATE)
        assert not boot.is_earlier(STATE)
        expected = {"warm/log", "locks/br0.lock", "mixed/x.lock", "top.lock", "kept", "boot", "boot.lock"}
        assert list_state() == expected
        assert not any((STATE / name).exists() for name in ("hostports", "leases", "a-plugin-of-tomorrow"))
        assert Path("/run/outside/x").read_text() == "old"

    host.call(run)


def test_state_of_this_boot_stays(host: Host) -> None:
    def run() -> None:
        fill()
        before = list_state()
        # Without an ID the state is of a release that wrote none.
        assert not boot.drop_earlier(STATE)
        assert list_state() - {"boot", "boot.lock"} == before
        boot._current.clear()  # noqa: SLF001 - as in another process
        assert not boot.drop_earlier(STATE)
        assert list_state() - {"boot", "boot.lock"} == before

    host.call(run)


def test_a_lock_that_is_held_is_held_after_that(host: Host) -> None:
    def run() -> None:
        fill()
        (STATE / "boot").write_text("another\n")
        path = STATE / "locks" / "br0.lock"
        with locked(path):
            inode = path.stat().st_ino
            assert boot.drop_earlier(STATE)
            assert path.stat().st_ino == inode

    host.call(run)


def test_the_rule_names_no_folder_but_the_servers() -> None:
    """A plugin that keeps state edits no file but its own."""
    text = Path(boot.__file__).read_text()
    names = ("hostports", "nftables", "leases", "bridges", "attachments")
    assert [name for name in names if name in text] == []

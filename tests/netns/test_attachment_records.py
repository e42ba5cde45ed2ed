"""Records of attachments: whole or not there, of this boot and this namespace, and never another's."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import faults
from cni.errors import CniError, Code
from cni.kernel import netns
from cni.operations import garbage
from cni.request import Attachment
from cni.state import attachments
from cni.state.attachments import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host

KEY = Key("notes", "net1", "c1", "eth0")
OTHERS = [
    KEY._replace(plugin="others"),
    KEY._replace(network="net2"),
    KEY._replace(container_id="c2"),
    KEY._replace(ifname="eth1"),
    # Parts that would be the same text if they were only put side by side.
    Key("notes", "net1", "c", "1eth0"),
    Key("notesn", "et1", "c1", "eth0"),
    Key("notes/net1", "", "c1", "eth0"),
]
OLD, NEW = {"mtu": 1500}, {"mtu": 1400, "mac": "02:00:00:00:00:01"}
MOST_POINTS = 50


def list_folder() -> list[str]:
    folder = attachments.FOLDER
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def the_file() -> Path:
    [name] = list_folder()
    return attachments.FOLDER / name


def test_a_record_is_read_as_it_was_saved_until_it_is_dropped(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        assert attachments.load(KEY) is None
        assert not attachments.drop(KEY)
        values = {"mtu": 1500, "sysctl": {"net.ipv4.x": "1"}, "list": [1, None, "é", True]}
        with netns.open_netns(path) as ns:
            attachments.save(KEY, values, ns)
            record = attachments.load(KEY)
            assert record is not None
            assert record.values == values
            assert (record.container_id, record.ifname, record.netns) == ("c1", "eth0", path)
            assert record.is_of(ns)
            attachments.save(KEY, NEW, ns)
        replaced = attachments.load(KEY)
        assert replaced is not None
        assert replaced.values == NEW
        assert the_file().stat().st_mode & 0o777 == 0o600
        assert attachments.drop(KEY)
        assert not attachments.drop(KEY)
        assert attachments.load(KEY) is None
        assert list_folder() == []

    host.call(run)


def test_no_other_attachment_network_or_plugin_has_the_record(host: Host) -> None:
    def run() -> None:
        for number, key in enumerate([KEY, *OTHERS]):
            attachments.save(key, {"number": number})
        for number, key in enumerate([KEY, *OTHERS]):
            record = attachments.load(key)
            assert record is not None
            assert record.values == {"number": number}
        attachments.drop(KEY)
        assert attachments.load(KEY) is None
        assert all(attachments.load(key) for key in OTHERS)

    host.call(run)


def test_another_namespace_at_the_same_path_is_told_apart(host: Host) -> None:
    path = host.sandbox("c1").path

    def save() -> tuple[str, int]:
        with netns.open_netns(path) as ns:
            attachments.save(KEY, OLD, ns)
            attachments.save(KEY._replace(ifname="host"), OLD)
            return ns.identity(), ns.inode

    def look() -> tuple[str, int]:
        record, of_none = attachments.load(KEY), attachments.load(KEY._replace(ifname="host"))
        assert record is not None
        assert of_none is not None
        with netns.open_netns(path) as ns:
            assert not record.is_of(ns)
            assert not of_none.is_of(ns)
            return ns.identity(), ns.inode

    first, first_inode = host.call(save)
    for _ in range(20):
        host.run(["ip", "netns", "delete", "c1"])
        host.run(["ip", "netns", "add", "c1"])
        second, second_inode = host.call(look)
        assert first != second
        if second_inode == first_inode:
            # The kernel has used the number again, and only the cookie differs.
            break


def test_a_cookie_is_one_of_the_kernel(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, netns.own() as own:
            assert ns.identity() == ns.identity() != own.identity()
            assert all(int(each.identity().rpartition(":")[2]) > 0 for each in (ns, own))

    host.call(run)


def test_records_end_with_the_boot(host: Host) -> None:
    def run() -> None:
        attachments.save(KEY, OLD)
        (attachments.FOLDER.parent / "boot").write_text("another\n")

    def look(use: Callable[[], object], expected: object) -> None:
        assert use() == expected
        assert list_folder() == []

    host.call(run)
    host.call(look, lambda: attachments.load(KEY), None)
    host.call(run)
    host.call(look, lambda: attachments.list_stale("notes", "net1", ()), [])
    host.call(run)

    def save_another() -> None:
        attachments.save(KEY._replace(container_id="c2"), NEW)
        assert attachments.load(KEY) is None
        assert len(list_folder()) == 1

    host.call(save_another)


def kill_at(number: int, action: Callable[[], object]) -> bool:
    """Run `action` in a child that is killed at its point `number`; return whether it came that far."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def meet(_name: str) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        faults.arm(meet)
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("before", [None, OLD])
def test_a_save_that_is_killed_at_any_point_leaves_the_old_or_the_new_record(
    host: Host, before: dict[str, int] | None
) -> None:
    def run() -> set[str]:
        seen = set()
        for number in range(1, MOST_POINTS):
            if before:
                attachments.save(KEY, before)
            was_killed = kill_at(number, lambda: attachments.save(KEY, NEW))
            record = attachments.load(KEY)
            values = dict(record.values) if record else None
            assert values in [before, NEW]
            seen.add("new" if values == NEW else "old")
            # DEL works, and nothing of it stays; a second attachment saves as ever.
            attachments.drop(KEY)
            assert list_folder() == []
            attachments.save(OTHERS[2], OLD)
            attachments.drop(OTHERS[2])
            if not was_killed:
                return seen
        raise AssertionError("never came to its end")

    assert host.call(run) == {"old", "new"}


def test_a_drop_that_is_killed_at_any_point_is_completed_by_the_next(host: Host) -> None:
    def run() -> None:
        for number in range(1, MOST_POINTS):
            attachments.save(KEY, OLD)
            was_killed = kill_at(number, lambda: attachments.drop(KEY))
            record = attachments.load(KEY)
            assert record is None or record.values == OLD
            attachments.drop(KEY)
            assert list_folder() == []
            if not was_killed:
                return
        raise AssertionError("never came to its end")

    host.call(run)


def test_gc_finds_what_is_not_valid_and_removes_no_more(host: Host) -> None:
    valid = frozenset({Attachment("c1", "eth0")})

    def run() -> None:
        for key in (KEY, *OTHERS):
            attachments.save(key, OLD)
        damaged = KEY._replace(container_id="c9")
        attachments.save(damaged, OLD)
        for record in attachments.list_stale("notes", "net1", ()):
            if record.container_id == "c9":
                Path(record.path).write_text("{")
        stale = attachments.list_stale("notes", "net1", valid)
        names = {(each.container_id, each.ifname) for each in stale}
        assert names == {("c2", "eth0"), ("c1", "eth1"), ("c", "1eth0"), ("", "")}
        assert [each.values for each in stale if each.container_id == "c2"] == [OLD]

        things = garbage.plan([lambda: garbage.find_records("notes", "net1", valid)])
        assert {(each.kind, each.network, each.container_id, each.ifname) for each in things} == {
            ("record", "net1", *each) for each in names
        }
        assert len(list_folder()) == len(OTHERS) + 2
        garbage.collect("notes", [lambda: garbage.find_records("notes", "net1", valid)])
        assert attachments.list_stale("notes", "net1", valid) == []
        assert attachments.load(KEY) is not None
        untouched = [key for key in OTHERS if (key.plugin, key.network) != ("notes", "net1")]
        assert all(attachments.load(key) for key in untouched)
        assert len(list_folder()) == 1 + len(untouched)

    host.call(run)


DAMAGED = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "a number": b"1",
    "null": b"null",
    "no values": json.dumps({**KEY._asdict(), "netns": "", "identity": ""}).encode(),
    "values of another type": json.dumps(
        {**KEY._asdict(), "netns": "", "identity": "", "values": [1]}
    ).encode(),
    "a path of another type": json.dumps(
        {**KEY._asdict(), "netns": 1, "identity": "", "values": {}}
    ).encode(),
    "another's": json.dumps({**OTHERS[2]._asdict(), "netns": "", "identity": "", "values": {}}).encode(),
    "deep": b"[" * 200_000,
    "too large": b'{"values": {' + b" " * (1 << 17) + b"}}",
    "a name that no encoding has": json.dumps(
        {**KEY._asdict(), "container_id": "\ud800", "netns": "", "identity": "", "values": {}}
    ).encode(),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_record_is_none_and_goes(host: Host, what: str) -> None:
    def run() -> None:
        attachments.save(KEY, OLD)
        the_file().write_bytes(DAMAGED[what])
        assert attachments.load(KEY) is None
        [stale] = attachments.list_stale("notes", "net1", ())
        assert (stale.container_id, stale.values) == ("", {})
        assert attachments.remove(stale)
        assert list_folder() == []

        attachments.save(KEY, OLD)
        the_file().write_bytes(DAMAGED[what])
        attachments.save(KEY, NEW)
        record = attachments.load(KEY)
        assert record is not None
        assert record.values == NEW

    host.call(run)


def plant(kind: str) -> None:
    attachments.save(KEY, OLD)
    path = the_file()
    path.unlink()
    secret = Path("/run/secret")
    secret.write_text(json.dumps({**KEY._asdict(), "netns": "", "identity": "", "values": {"a": "secret"}}))
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_read(host: Host, kind: str) -> None:
    def run() -> None:
        plant(kind)
        with pytest.raises(CniError) as caught:
            attachments.load(KEY)
        assert caught.value.code == Code.STORE
        assert str(the_file()) in caught.value.msg
        [stale] = attachments.list_stale("notes", "net1", ())
        assert stale.values == {}
        if kind != "folder":
            assert attachments.drop(KEY)
            assert list_folder() == []
        assert "secret" in Path("/run/secret").read_text()

    host.call(run)


@pytest.mark.parametrize("how", ["writable", "another's", "link"])
def test_a_folder_that_others_can_change_is_not_used(host: Host, how: str) -> None:
    def run() -> None:
        attachments.save(KEY, OLD)
        folder = attachments.FOLDER
        if how == "writable":
            folder.chmod(0o777)
        elif how == "another's":
            os.chown(folder, 4711, 0)
        else:
            moved = folder.rename("/run/moved")
            folder.symlink_to(moved)
            os.lchown(folder, 4711, 0)
        for use in (
            lambda: attachments.load(KEY),
            lambda: attachments.save(KEY, NEW),
            lambda: attachments.list_stale("notes", "net1", ()),
        ):
            with pytest.raises(CniError) as caught:
                use()
            assert caught.value.code == Code.STORE

    host.call(run)


def test_a_record_that_is_no_small_one_is_refused_and_the_old_one_stays(host: Host) -> None:
    def run() -> None:
        attachments.save(KEY, OLD)
        with pytest.raises(CniError) as caught:
            attachments.save(KEY, {"a": "x" * (1 << 17)})
        assert caught.value.code == Code.STORE
        record = attachments.load(KEY)
        assert record is not None
        assert record.values == OLD

    host.call(run)


def test_processes_at_the_same_time_leave_one_whole_record(host: Host) -> None:
    """Some save one record, some another one, some drop, and some read all the while."""

    def work(number: int) -> None:
        for turn in range(60):
            if number % 4 == 0:
                attachments.drop(KEY)
            elif number % 4 == 1:
                record = attachments.load(KEY)
                assert record is None or record.values["text"] == str(record.values["number"]) * 1000
            else:
                digit = (number + turn) % 10
                attachments.save(KEY, {"number": digit, "text": str(digit) * 1000})

    def run() -> None:
        attachments.save(OTHERS[2], OLD)
        pids = []
        for number in range(8):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    work(number)
                    status = 0
                finally:
                    os._exit(status)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
        attachments.save(KEY, NEW)
        other = attachments.load(OTHERS[2])
        assert other is not None
        assert other.values == OLD
        assert len(list_folder()) == 2

    host.call(run)

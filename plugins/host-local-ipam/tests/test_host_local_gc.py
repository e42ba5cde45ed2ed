"""GC and STATUS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing.direct import call
from cni_host_local_ipam import PLUGIN

if TYPE_CHECKING:
    from cni.testing.answer import Answer

CASES = json.loads((Path(__file__).parent / "data/gc.json").read_text(encoding="utf-8"))

# What each name in the table of cases holds.
FOLDER = {
    "10.1.0.2": b"c1\r\neth0",
    "10.1.0.3": b"c1\r\neth1",
    "10.1.0.4": b"c2\r\neth0",
    "10.1.0.5": b"old",
    "10.1.0.6": b"",
    "10.9.9.9": b"c3\r\neth0",
    "fd00::2": b"c2\r\neth0",
    "10.1.0.7": b"\xff\xfe rubbish \r\n \r\n",
    "10.1.0.2~": b"c9\r\neth0",
    "notes.txt": b"c9\r\neth0",
    ".unfinished-0123456789ab": b"c1\r\neth0",
    "last_reserved_ip.0": b"10.1.0.6",
    "last_reserved_ip.1": b"fd00::2",
    "lock": b"",
}


def run(verb: str, top: Path, *, is_strict: bool = False, **others: Any) -> Answer:
    located: dict[str, Any] = {"type": "host-local", "subnet": "10.1.0.0/29", "dataDir": str(top)}
    located |= {"statusFailsWhenFull": True} if is_strict else {}
    return call(PLUGIN, verb, {"cniVersion": "1.1.0", "name": "net", "ipam": located} | others)


def gc(top: Path, valid: list[dict[str, str]]) -> Answer:
    keys: dict[str, Any] = {"cni.dev/valid-attachments": valid}
    return run("GC", top, **keys)


def fill(top: Path, files: dict[str, bytes]) -> Path:
    folder = top / "net"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("case", [pytest.param(each, id=each["what"]) for each in CASES])
def test_gc_removes_what_no_valid_attachment_holds(tmp_path: Path, case: dict[str, Any]) -> None:
    folder = fill(tmp_path, FOLDER)
    answer = run("GC", tmp_path, **case["keys"])
    answer.must()
    gone = set(FOLDER) - {each.name for each in folder.iterdir()}
    assert gone == set(case["removed"])
    assert len(answer.stderr.splitlines()) == len(gone)
    left = {each.name: each.read_bytes() for each in folder.iterdir()}
    assert left == {name: content for name, content in FOLDER.items() if name not in gone}


def test_gc_of_250_stale_leases_leaves_the_valid_one_and_add_works(tmp_path: Path) -> None:
    leases = {f"10.1.0.{last}": f"c{last}\r\neth0".encode() for last in range(2, 252)}
    folder = fill(tmp_path, leases)
    gc(tmp_path, [{"containerID": "c77", "ifname": "eth0"}]).must()
    assert sorted(each.name for each in folder.iterdir()) == ["10.1.0.77", "lock"]
    assert run("ADD", tmp_path).addresses == ["10.1.0.2"]


def test_gc_without_a_folder_makes_none(tmp_path: Path) -> None:
    gc(tmp_path / "no", []).must()
    assert not list(tmp_path.iterdir())


def test_gc_of_a_malformed_list_removes_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path, FOLDER)
    answer = gc(tmp_path, [{"containerID": "c1"}])
    assert answer.code == Code.INVALID_CONFIG
    assert {each.name for each in folder.iterdir()} == set(FOLDER)


def test_status_is_good_without_a_folder_and_makes_none(tmp_path: Path) -> None:
    run("STATUS", tmp_path / "a" / "b").must()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_strict", [False, True])
def test_status_tells_a_full_pool(tmp_path: Path, *, is_strict: bool) -> None:
    files = {f"10.1.0.{last}": f"c{last}\r\neth0".encode() for last in range(2, 7)}
    folder = fill(tmp_path, files)
    answer = run("STATUS", tmp_path, is_strict=is_strict)
    text = "no IP addresses available in range set: 10.1.0.1-10.1.0.6"
    assert (answer.code, answer.msg) == ((Code.NOT_AVAILABLE, text) if is_strict else (0, ""))
    assert (text in answer.stderr) is not is_strict
    assert {each.name for each in folder.iterdir()} == set(files)


def test_status_counts_no_empty_files_and_no_gateway(tmp_path: Path) -> None:
    files = {f"10.1.0.{last}": b"c\r\neth0" for last in range(1, 6)} | {"10.1.0.6": b""}
    fill(tmp_path, files)
    answer = run("STATUS", tmp_path, is_strict=True)
    assert answer.must() == {}
    assert answer.stderr == ""


def test_status_fails_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    answer = run("STATUS", tmp_path / "file")
    assert answer.code == Code.NOT_AVAILABLE
    assert str(tmp_path / "file") in answer.msg


def test_status_tells_every_reason(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"10.1.0.2": b"c1\r\neth0"})
    (folder / "lock").mkdir()
    located = {"type": "host-local", "subnet": "10.1.0.0/29", "dataDir": str(tmp_path)}
    located["resolvConf"] = str(tmp_path / "nowhere")
    answer = run("STATUS", tmp_path, ipam=located)
    assert answer.code == Code.NOT_AVAILABLE
    assert answer.msg.startswith(f"no address can be given: could not open lock {folder}/lock")
    assert f"open {tmp_path}/nowhere: no such file or directory" in answer.json["details"]


PREVIOUS = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/29"}, {"address": "192.0.2.1/24"}]}


def check(top: Path) -> Answer:
    return run("CHECK", top, prevResult=PREVIOUS)


def test_check_compares_the_leases_with_the_result(tmp_path: Path) -> None:
    # An address of another plugin, 192.0.2.1, is none of ours.
    folder = fill(tmp_path, {"10.1.0.2": b"c1\r\neth0"})
    check(tmp_path).must()
    (folder / "10.1.0.2").rename(folder / "10.1.0.3")
    answer = check(tmp_path)
    assert (answer.code, answer.msg) == (104, f"host-local: address 10.1.0.2 has no lease in {folder}")
    (folder / "10.1.0.2").write_bytes(b"other\r\neth0")
    answer = check(tmp_path)
    assert answer.msg.startswith("host-local: address 10.1.0.2 is held by container other, interface eth0")
    (folder / "10.1.0.3").unlink()
    answer = check(tmp_path)
    assert answer.msg == "host-local: Failed to find address added by container c1"
    assert "held by container other" in answer.json["details"]


def test_repair_takes_an_address_again_unless_somebody_has_it(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"10.1.0.3": b"c2\r\neth0"})
    told = run("PYCNI_REPAIR", tmp_path, prevResult=PREVIOUS).must()
    assert told == {"failed": [], "repaired": ["took 10.1.0.2 again"]}
    assert (folder / "10.1.0.2").read_bytes() == b"c1\r\neth0"
    assert run("PYCNI_REPAIR", tmp_path, prevResult=PREVIOUS).must() == {"failed": [], "repaired": []}
    (folder / "10.1.0.2").write_bytes(b"other\r\neth0")
    told = run("PYCNI_REPAIR", tmp_path, prevResult=PREVIOUS).must()
    assert told["repaired"] == []
    assert "is held by container other" in told["failed"][0]["msg"]
    assert (folder / "10.1.0.2").read_bytes() == b"other\r\neth0"


def test_a_plan_of_gc_tells_what_gc_removes(tmp_path: Path) -> None:
    folder = fill(tmp_path, FOLDER)
    keys: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    told = run("PYCNI_GC_PLAN", tmp_path, **keys).must()["stale"]
    assert {each.name for each in folder.iterdir()} == set(FOLDER)
    run("GC", tmp_path, **keys).must()
    gone = set(FOLDER) - {each.name for each in folder.iterdir()}
    assert {each["name"] for each in told} == {str(folder / name) for name in gone}
    assert {"kind": "lease", "name": str(folder / "10.1.0.6"), "network": "net"} | {
        "reason": "it is empty: nobody holds it"
    } in told

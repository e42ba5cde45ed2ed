"""Full and read-only disks, corrupt and missing files, meddling hands: it is told, and DEL goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.errors import Code
from cni.testing.faults import STOP, Fault
from cni.testing.place import BARE_ENV
from tests.netns.fault_world import BACKENDS, CALM, COLD, CUT, busy_world, world
from tests.support.scene import INTERFACE, LOOPBACK, PORTS

if TYPE_CHECKING:
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


class Spoiled(NamedTuple):
    """How a folder is made so that nothing can be written to it, and how that is put right."""

    folder: str
    reason: str
    make: str
    unmake: str


_FILL = "mount -o remount,size=1m {0}; dd if=/dev/zero of={0}/ballast bs=4k status=none || true"
SPOILED = [
    *(
        Spoiled(each, "no space left on device", _FILL.format(each), f"rm {each}/ballast")
        for each in ("/run", "/var/lib/cni")
    ),
    Spoiled(
        "/run/pycni",
        "read-only file system",
        "mount --bind /run/pycni /run/pycni; mount -o remount,ro,bind /run/pycni",
        "umount /run/pycni",
    ),
    Spoiled(
        "/var/lib/cni",
        "read-only file system",
        "mount -o remount,ro /var/lib/cni",
        "mount -o remount,rw /var/lib/cni",
    ),
]


def test_nothing_is_attached_where_nothing_can_be_written(busy_world: World, backend: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    for folder, reason, make, unmake in SPOILED:
        world.host.run(["sh", "-c", make])
        world.call(LOOPBACK, "ADD", CUT, COLD).must()
        refused = world.call(INTERFACE, "ADD", CUT, COLD)
        if refused.ok:
            # What it has to write lies elsewhere.
            refused = world.call(PORTS, "ADD", CUT, COLD)
        world.host.run(["sh", "-c", unmake])
        assert (refused.code, reason in refused.msg, folder in refused.msg) == (Code.STORE, True, True), (
            refused
        )
        world.delete(CUT)
        assert world.left(before) == [], (folder, reason)
    assert world.is_calm()


def test_del_takes_away_what_it_can_where_nothing_can_be_written(busy_world: World, backend: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    for folder, reason, make, unmake in SPOILED:
        world.add(CUT)
        world.host.run(["sh", "-c", make])
        answers = [world.call(each, "DEL", CUT, COLD) for each in (PORTS, INTERFACE, LOOPBACK)]
        world.host.run(["sh", "-c", unmake])
        assert {each.code for each in answers} <= ({0, Code.STORE} if "read" in reason else {0})
        # Only files can be left: links, addresses, routes and rules are gone.
        assert [each for each in world.left(before) if "files: " not in each] == [], (folder, reason)
        world.delete(CUT)
        assert world.left(before) == [], (folder, reason)
    assert world.is_calm()


@pytest.mark.parametrize("content", ["", "rubbish", '[["x"', "null", '{"network": 1}'])
def test_files_that_were_corrupted_keep_nobody_from_a_del(
    busy_world: World, backend: str, content: str
) -> None:
    world = busy_world
    world.add(CUT)
    world.host.call(_corrupt, content.encode())
    world.delete(CUT)
    world.add(CUT)
    assert world.reaches(CUT)
    for name in (CUT, CALM):
        world.delete(name)
    assert world.host.call(_rules_of_containers) == []


def _corrupt(content: bytes) -> None:
    files = [*Path("/run/pycni/hostports").rglob("*"), *Path("/run/pycni/nftables").rglob("*")]
    files += Path("/var/lib/cni/networks/net1").glob("last_reserved_ip.*")
    for each in files:
        if each.is_file():
            each.write_bytes(content)


def _rules_of_containers() -> list[str]:
    import subprocess

    commands = [["iptables-save", "-t", "nat"], ["ip6tables-save", "-t", "nat"], ["nft", "list", "ruleset"]]
    shown = [subprocess.run(each, capture_output=True, text=True, check=True).stdout for each in commands]
    lines = [line for each in shown for line in each.splitlines()]
    return [line for line in lines if f"id: {CUT}" in line or f"id: {CALM}" in line or "DN-" in line]


def test_a_lease_that_was_emptied_is_nobodys(busy_world: World, backend: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    world.add(CUT)
    address = str(world.results[CUT]["ips"][0]["address"]).split("/")[0]
    world.host.run(["truncate", "-s", "0", f"/var/lib/cni/networks/net1/{address}"])
    world.delete(CUT)
    world.collect([CALM])
    assert world.left(before) == []


def test_folders_that_were_removed_keep_nobody_from_a_del(busy_world: World, backend: str) -> None:
    world = busy_world
    world.add(CUT)
    world.host.run(["sh", "-c", "rm -r /var/lib/cni/networks /run/pycni/[bhn]*"])
    for name in (CUT, CALM):
        world.delete(name)
    assert world.host.call(_rules_of_containers) == []
    assert [each for each in world.host.links() if each.startswith("veth")] == []
    world.add(CUT)
    assert world.reaches(CUT)


@pytest.mark.long
def test_a_lock_that_a_stopped_process_holds_is_told_in_time(busy_world: World, backend: str) -> None:
    if backend == "iptables":
        pytest.skip("the lock is the same, and the wait half a minute")
    world = busy_world
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": CUT, "CNI_NETNS": f"/run/netns/{CUT}",
        "CNI_IFNAME": "eth0", "CNI_PATH": str(world.host.bindir),
    }  # fmt: skip
    # That of the bridge comes before that of the pool.
    fault = Fault(STOP, "lock.taken", 2).env
    holder = world.host.place.popen(
        [str(world.host.bindir / INTERFACE)],
        json.dumps(world.conf(INTERFACE, CUT)),
        env=BARE_ENV | env | COLD | fault,
    )
    while "State:\tT" not in Path(f"/proc/{holder.pid}/status").read_text():
        time.sleep(0.01)
    other = world.host.sandbox("other")
    begin = time.monotonic()
    answer = world.host.plugin(
        INTERFACE, "ADD", world.conf(INTERFACE), netns=other, container_id="other", timeout_s=120
    )
    assert 29 < time.monotonic() - begin < 60
    command = Path(f"/proc/{holder.pid}/comm").read_text().strip()
    assert (answer.code, answer.json["details"]) == (
        Code.TRY_AGAIN, f"it is held by process {holder.pid} ({command})"
    )  # fmt: skip
    assert answer.msg == "could not lock /var/lib/cni/networks/net1/lock within 30 s"
    assert other.links() == ["lo"]
    os.kill(holder.pid, signal.SIGCONT)
    out, _ = holder.communicate(timeout=60)
    assert holder.returncode == 0, out


RENAMES = {
    "the container's end": ("cut", "eth0", "Interface eth0 does not exist"),
    "the host's end": ("", "", "Interface name handmade, the host end of eth0, not found in prevResult"),
}


@pytest.mark.parametrize("which", RENAMES)
def test_a_link_renamed_by_hand_is_told_by_check_and_removed_by_del(
    busy_world: World, backend: str, which: str
) -> None:
    world = busy_world
    before = world.host.snapshot()
    world.add(CUT)
    where, name, told = RENAMES[which]
    inside = world.sandboxes[where] if where else world.host
    name = name or str(world.results[CUT]["interfaces"][1]["name"])
    # Older kernels rename no link that is up, and a single command would rename it first.
    inside.batch([f"link set {name} down", f"link set {name} name handmade"])
    conf = world.conf(INTERFACE, CUT) | {"prevResult": world.results[CUT]}
    answer = world.host.plugin(INTERFACE, "CHECK", conf, netns=world.sandboxes[CUT], container_id=CUT)
    assert answer.code == Code.MISMATCH
    assert told in f"{answer.json}"
    world.delete(CUT)
    assert world.left(before) == []


def test_del_succeeds_when_the_bridge_was_removed_by_hand(busy_world: World, backend: str) -> None:
    world = busy_world
    world.add(CUT)
    world.host.run(["ip", "link", "delete", "br0"])
    for name in (CUT, CALM):
        world.delete(name)
    assert [each for each in world.host.links() if each.startswith("veth")] == []
    assert world.host.call(_rules_of_containers) == []
    world.add(CUT)
    assert world.reaches(CUT)

"""Leases of before this boot: nobody holds them, and that is found out when an address is needed.

A time namespace lets the kernel say that it has just started, an empty /run is what a boot leaves of it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import make_bindir
from cni.testing.host import Host
from cni.testing.place import why_no_namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.testing.answer import Answer

FOLDER = Path("/var/lib/cni/networks")
OLD = {
    "10.1.0.2": "gone2\r\neth0", "10.1.0.3": "gone3\r\neth0", "10.1.0.4": "gone4\r\neth0",
    "10.1.0.5": "by-hand", "10.1.0.6": "gone6\r\neth0",
}  # fmt: skip
RANGE = "10.1.0.1-10.1.0.6"

# More than what is rounded and allowed for.
AGED_S = 5

BOOTED = """#!/bin/sh
exec unshare --mount --time --boottime -{uptime_s} sh -c '
    {run}
    exec {plugin}
'
"""
NEW_RUN = "mount -t tmpfs tmpfs /run && mkdir /run/lock"


def write(names: list[str]) -> None:
    for name in names:
        folder = FOLDER / name
        folder.mkdir(parents=True)
        for address, content in OLD.items():
            (folder / address).write_bytes(content.encode())


def read(name: str) -> dict[str, str]:
    return {each.name: each.read_bytes().decode() for each in (FOLDER / name).glob("1*")}


class Pool:
    """A full pool of old leases. Calls may be "booted", after a boot, and "set", after the clock was."""

    def __init__(self, host: Host, folder: Path, name: str) -> None:
        self.host = host
        self.folder = folder
        self.name = name

    def call(self, when: str, verb: str, container_id: str, args: str = "", **ipam: Any) -> Answer:
        conf = {"cniVersion": "1.1.0", "name": self.name, "type": "host-local"}
        if verb == "GC":
            conf |= {"cni.dev/valid-attachments": ipam.pop("valid")}
        keys = {"type": "host-local", "subnet": "10.1.0.0/29", **ipam}
        return self.host.plugin(
            "host-local",
            verb,
            conf | {"ipam": keys},
            netns="/run/netns/none",
            container_id=container_id,
            args=args,
            bindir=self.folder / when,
        )

    def files(self) -> dict[str, str]:
        return self.host.call(read, self.name)


def boot(folder: Path, plugin: Path) -> None:
    """Make executables for which the machine was started just now."""
    uptime_s = int(float(Path("/proc/uptime").read_text().split()[0])) - 1
    for when, run in (("booted", NEW_RUN), ("set", ":")):
        wrapper = folder / when / "host-local"
        wrapper.parent.mkdir()
        wrapper.write_text(BOOTED.format(uptime_s=uptime_s, run=run, plugin=plugin))
        wrapper.chmod(0o755)


@pytest.fixture(scope="module")
def make_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pool]]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    folder = tmp_path_factory.mktemp("boot")
    bindir = make_bindir(folder, {"host-local": "cni_host_local_ipam"})
    (folder / "before").symlink_to("bin")
    names = [f"net{number}" for number in range(20)]
    with Host(bindir) as host:
        host.call(write, names)
        time.sleep(AGED_S)
        boot(folder, bindir / "host-local")
        yield lambda: Pool(host, folder, names.pop())


@pytest.fixture
def pool(make_pool: Callable[[], Pool]) -> Pool:
    return make_pool()


def test_within_the_boot_the_pool_is_full(pool: Pool) -> None:
    answer = pool.call("before", "ADD", "c1")
    assert (answer.code, answer.msg) == (
        Code.POOL, f"failed to allocate for range 0: no IP addresses available in range set: {RANGE}"
    )  # fmt: skip
    assert pool.files() == OLD


def test_a_pool_full_of_old_leases_gives_their_addresses(pool: Pool) -> None:
    given = [pool.call("booted", "ADD", f"c{number}").must()["ips"][0]["address"] for number in range(4)]
    assert given == ["10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29", "10.1.0.6/29"]
    # What names no interface may have been put there by a person.
    assert pool.files()["10.1.0.5"] == "by-hand"
    assert pool.call("booted", "ADD", "c4").code == Code.POOL
    pool.call("booted", "DEL", "gone2").must()
    assert pool.files()["10.1.0.2"] == "c0\r\neth0"


def test_an_address_that_is_asked_for_is_not_held_by_an_old_lease(pool: Pool) -> None:
    assert pool.call("before", "ADD", "c1", "IP=10.1.0.3").code == Code.POOL
    assert pool.call("booted", "ADD", "c1", "IP=10.1.0.3").addresses == ["10.1.0.3"]
    assert pool.call("booted", "ADD", "c2", "IP=10.1.0.3").code == Code.POOL
    assert pool.call("booted", "ADD", "c2", "IP=10.1.0.5").code == Code.POOL


def test_a_container_that_is_started_again_gets_its_address_back(pool: Pool) -> None:
    refused = pool.call("before", "ADD", "gone4")
    assert refused.code == Code.ALREADY_EXISTS
    assert "10.1.0.4 has been allocated to gone4, duplicate allocation is not allowed" in refused.msg
    assert pool.call("booted", "ADD", "gone4").addresses == ["10.1.0.4"]
    assert pool.call("booted", "ADD", "gone4").code == Code.ALREADY_EXISTS
    pool.call("booted", "DEL", "gone4").must()
    assert "10.1.0.4" not in pool.files()


def test_an_old_address_of_its_own_that_is_asked_for_is_of_this_boot_then(pool: Pool) -> None:
    for container_id, code in (("gone6", 0), ("c1", Code.POOL)):
        assert pool.call("booted", "ADD", container_id, "IP=10.1.0.6").code == code


def test_nothing_is_old_where_the_clock_was_set(pool: Pool) -> None:
    """The kernel says that it has started later than the files in /run are: who is right is not known."""
    assert pool.call("set", "ADD", "c1").code == Code.POOL
    assert pool.call("set", "ADD", "gone4").code == Code.ALREADY_EXISTS
    assert pool.files() == OLD


def test_old_leases_are_kept_where_that_is_asked_for(pool: Pool) -> None:
    assert pool.call("booted", "ADD", "c1", keepOverBoot=True).code == Code.POOL
    assert pool.files() == OLD


def test_status_does_not_count_leases_of_an_earlier_boot(pool: Pool) -> None:
    for when, code in (("before", Code.NOT_AVAILABLE), ("booted", 0)):
        assert pool.call(when, "STATUS", "", statusFailsWhenFull=True).code == code


def test_check_and_gc_go_by_what_the_files_say(pool: Pool) -> None:
    pool.call("booted", "CHECK", "gone2").must()
    assert pool.files() == OLD
    # A runtime that says that it has them knows better than the clock.
    kept = ["gone2", "gone4"]
    valid = [{"containerID": each, "ifname": "eth0"} for each in kept]
    pool.call("booted", "GC", "", valid=valid).must()
    assert sorted(each.split("\r\n")[0] for each in pool.files().values()) == kept

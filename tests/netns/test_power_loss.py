"""A power cut leaves whole files, old or new, and nothing that the next boot takes for its own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.ipam.lease_index import MANY, LeaseIndex
from cni.ipam.leases import Leases
from cni.request import Attachment
from cni.testing import make_command
from cni.testing.place import BARE_ENV
from tests.netns.security_host import Chain
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.testing import Host

pytestmark = pytest.mark.one_worker

# ---- each file is synced before it gets its name ----

SYSCALLS = "trace=openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat"
NAMED = re.compile(
    r'(?:rename|link)(?:at2?)?\((?:AT_FDCWD[^,]*, )?"(?P<new>[^"]+)", '
    r'(?:AT_FDCWD[^,]*, )?"(?P<name>[^"]+)".* = 0$'
)
SYNCED = re.compile(r"f(?:data)?sync\(\d+<(?P<file>[^>]+)>\) += 0$")
WRITTEN = re.compile(r"(?:write|pwrite64|ftruncate)\(\d+<(?P<file>[^>]+)>")
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "plugins": [
        {
            "type": scene.INTERFACE,
            "isGateway": True,
            "ipMasq": True,
            "ipMasqBackend": "nftables",
            "ipam": {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}]]},
        },
        scene.ports(backend="nftables"),
    ],
}
# What stands for the kinds of files: the first part that is found in a path.
KINDS = {
    "a lease": "/networks/net1/10.1.0.2",
    "the last address": "/networks/net1/last_reserved_ip.0",
    "a port": "/hostports/tcp-8080",
    "a container's claims": "/hostports/by-owner/",
    "elements of masquerading": ".masquerade",
    "elements of ports": ".forward",
    "the boot": "/run/pycni/boot",
    "a result": "/results/",
}


def list_named(trace: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the files that got a name, and whether their content had been synced by then."""
    clean: set[str] = set()
    found = []
    for line in trace:
        if match := SYNCED.search(line):
            clean.add(match["file"])
        elif match := WRITTEN.search(line):
            clean.discard(match["file"])
        elif match := NAMED.search(line):
            found.append((match["name"], match["new"] in clean))
    return [each for each in found if each[0].startswith(("/run/pycni/", "/var/lib/cni/", "/r/"))]


def test_a_trace_tells_what_was_not_synced() -> None:
    """The test below would notice."""
    write, sync, link = (
        '7 write(4</r/.new>, "x", 1) = 1',
        "7 fsync(4</r/.new>) = 0",
        '7 link("/r/.new", "/r/a") = 0',
    )
    rename = '7 rename("/r/.new", "/r/b") = 0'
    assert list_named([write, sync, link, rename]) == [("/r/a", True), ("/r/b", True)]
    assert list_named([write, link]) == [("/r/a", False)]
    assert list_named([sync, write, rename]) == [("/r/b", False)]
    assert list_named([write, sync.replace("= 0", "= -1 EIO"), link]) == [("/r/a", False)]
    assert list_named(['7 link("/r/.new", "/r/a") = -1 EEXIST (File exists)']) == []


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_each_file_of_an_add_is_synced_before_it_gets_its_name(host: Host, tmp_path: Path) -> None:
    host.sandbox("c1")
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/1.conflist"], json.dumps(CONFLIST))
    command, told = str(make_command(tmp_path, host.bindir)), tmp_path / "trace"
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    env = BARE_ENV | {"CNI_PATH": str(host.bindir), "CAP_ARGS": json.dumps({"portMappings": ports})}
    argv = ["strace", "-f", "-y", "-qq", "-s", "300", "-o", str(told), "-e", SYSCALLS, command]
    host.run([*argv, "add", "net1", "/run/netns/c1"], env=env)
    trace = told.read_text().splitlines()
    assert not [line for line in trace if "unfinished ..." in line and "sync" in line], "lines are torn"
    named = list_named(trace)
    assert [name for name, is_synced in named if not is_synced] == []
    for what, part in KINDS.items():
        assert [name for name, _ in named if part in name], what
    # All that lies there came by a name given to it, but for locks and links.
    files = host.run(
        ["find", "/run/pycni", "/var/lib/cni", "-type", "f", "!", "-name", "lock", "!", "-name", "*.lock"]
    )
    assert set(files.split()) <= {name for name, _ in named}


# ---- a file system that loses all that was not synced ----

# <linux/ext4.h>: _IOR('X', 125, __u32), and to write nothing more.
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
NETWORKS = Path("/var/lib/cni/networks")
POOL = NETWORKS / "net1"
IPAM = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "type": scene.IPAM,
    "ipam": {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}


def lose_power() -> None:
    folder = os.open(NETWORKS, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
    finally:
        os.close(folder)


def sync_another() -> None:
    """Write all names to the disk, and the content of one file only, as any program may."""
    with (NETWORKS / "another").open("w") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())


def list_broken() -> list[str]:
    """Return the files that are neither whole nor allowed to be empty."""
    found = []
    for path in sorted(POOL.iterdir()):
        content = path.read_bytes().decode()
        is_lease = re.fullmatch(r"c\d+\r\neth0", content) and path.name.startswith("10.")
        is_last = path.name == "last_reserved_ip.0" and content.startswith("10.1.0.")
        if not (is_lease or is_last or path.name in {"lock", ".unfinished-lease"}):
            found.append(f"{path.name}: {content!r}")
    return found


@contextmanager
def disk(host: Host, image: Path) -> Iterator[list[str]]:
    """Mount a separate file system for leases. Return the command that mounts it again."""
    with image.open("wb") as file:
        file.truncate(16 << 20)
    host.run(["mkfs.ext4", "-q", "-F", str(image)])
    host.run(["mkdir", str(NETWORKS)])
    mount = ["mount", "-o", "loop", str(image), str(NETWORKS)]
    if why := host.place.run(mount, check=False).stderr:
        pytest.skip(f"needs a loop device: {why.strip()}")
    try:
        yield mount
    finally:
        host.run(["umount", str(NETWORKS)])


@pytest.mark.skipif(not shutil.which("mkfs.ext4", path=BARE_ENV["PATH"]), reason="needs e2fsprogs")
def test_after_a_power_cut_each_lease_is_whole_or_not_there(host: Host, tmp_path: Path) -> None:
    def call(verb: str, number: int) -> list[str]:
        answer = host.plugin(scene.IPAM, verb, IPAM, netns="/run/netns/none", container_id=f"c{number}")
        answer.must()
        return answer.addresses

    with disk(host, tmp_path / "image") as mount:
        survivors = 0
        for turn in range(6):
            [kept] = call("ADD", 10 * turn)
            [given] = call("ADD", 10 * turn + 1)
            call("DEL", 10 * turn + 1)
            call("ADD", 10 * turn + 2)
            if turn % 2:
                host.call(sync_another)
            host.call(lose_power)
            # What was mounted twice by the same number is one file system, shut down.
            host.run(["umount", str(NETWORKS)])
            host.run(mount)
            if "net1" not in host.run(["ls", str(NETWORKS)]).split():
                assert turn == 0
                continue
            assert host.call(list_broken) == [], f"turn {turn}"
            there = set(host.run(["ls", str(POOL)]).split())
            assert turn % 2 == 0 or kept in there
            survivors += kept in there
            # The pool works as ever, and gives nothing that is taken.
            for number in (10 * turn + 3, 10 * turn + 4):
                [address] = call("ADD", number)
                assert address not in there
                assert address != given or given not in there
        assert survivors >= 3


# ---- another boot, where /run was not emptied ----


def set_boot(host: Host, tmp_path: Path, text: str) -> None:
    """Let the kernel say that this is another boot."""
    file = tmp_path / "boot_id"
    file.write_text(f"{text}\n")
    path = "/proc/sys/kernel/random/boot_id"
    if host.run(["cat", path]) != file.read_text():
        host.run(["mount", "--bind", str(file), path])
    assert host.run(["cat", path]) == f"{text}\n"


def test_claims_and_records_of_another_boot_do_not_count(host: Host, tmp_path: Path) -> None:
    """The first container's namespace is there, as one of the same number may be after a boot."""
    set_boot(host, tmp_path, "one")
    chain, sandboxes = Chain(host), [host.sandbox(f"c{number}") for number in range(3)]
    chain.add(sandboxes[0], container_id="c0").must()
    assert host.run(["cat", "/run/pycni/boot"]) == "one\n"
    assert chain.add(sandboxes[1], container_id="c1").code == Code.PORT_TAKEN
    chain.delete(sandboxes[1], container_id="c1")
    records = set(host.run(["ls", "/run/pycni/nftables"]).split())
    assert len(records) == 2

    host.run(["nft", "flush", "ruleset"])
    set_boot(host, tmp_path, "two")
    chain.add(sandboxes[1], container_id="c1").must()
    assert host.run(["cat", "/run/pycni/boot"]) == "two\n"
    # The record of the first one is dropped once. The record of the second one remains.
    assert not records & set(host.run(["ls", "/run/pycni/nftables"]).split())
    assert len(host.run(["ls", "/run/pycni/hostports/by-owner"]).split()) == 1
    refused = chain.add(sandboxes[2], container_id="c2")
    assert refused.code == Code.PORT_TAKEN
    assert '"c1"' in refused.msg


def test_state_of_a_release_without_boot_records_stays(host: Host, tmp_path: Path) -> None:
    chain, sandboxes = Chain(host), [host.sandbox(f"c{number}") for number in range(2)]
    chain.add(sandboxes[0], container_id="c0").must()
    host.run(["rm", "/run/pycni/boot"])
    assert chain.add(sandboxes[1], container_id="c1").code == Code.PORT_TAKEN
    assert host.run(["cat", "/run/pycni/boot"]) == Path("/proc/sys/kernel/random/boot_id").read_text()


def fill_and_forge() -> None:
    """Make a large pool and a sealed cache of it that lacks the first container."""
    leases, index = Leases(POOL), LeaseIndex(POOL)
    POOL.mkdir(parents=True)
    for number in range(2 * MANY):
        (POOL / f"10.1.0.{2 + number}").write_bytes(f"c{number}\r\neth0".encode())
    with leases.locked():
        leases.list_of(Attachment("c0", "eth0"))
    assert index.look()
    for link in Path(index._links).iterdir():  # noqa: SLF001 - to forge it
        link.unlink()
    index.is_current = True
    index.seal()
    assert index.look()
    assert Leases(POOL).list_of(Attachment("c0", "eth0")) == []


def test_a_cache_of_leases_of_another_boot_does_not_count(host: Host, tmp_path: Path) -> None:
    set_boot(host, tmp_path, "one")
    host.call(fill_and_forge)
    set_boot(host, tmp_path, "two")
    host.plugin(scene.IPAM, "DEL", IPAM, netns="/run/netns/none", container_id="c0").must()
    assert "10.1.0.2" not in host.run(["ls", str(POOL)]).split()
    assert host.run(["cat", "/run/pycni/boot"]) == "two\n"

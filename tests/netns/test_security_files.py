"""docs/security.md on files: what other users have put where ours belong, and who may read ours."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.cli.settings import container_id
from cni.errors import Code
from cni.firewall import owners
from cni.firewall.intents import Owner, PortMapping
from cni.hostports import ledger
from cni.runtime.cache import Cache, Entry, show_entry
from cni.testing import make_command
from cni.testing.place import BARE_ENV
from cni.undo import Undo
from tests.netns.security_host import BACKENDS, Chain, make_host
from tests.support import scene
from tests.support.command import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.testing import Host

NOBODY = 65534
NETWORKS, RUN = "/var/lib/cni/networks", "/run/pycni"
VICTIM = "/run/victim"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def one_worker(served_bindir: Path) -> Iterator[Host]:
    with make_host(served_bindir) as host:
        yield host


# ---- folders in others' hands ----


def _plant_link(path: Path) -> None:
    path.symlink_to(VICTIM)
    os.lchown(path, NOBODY, NOBODY)


def _give_away(path: Path) -> None:
    path.mkdir(0o755)
    os.chown(path, NOBODY, NOBODY)


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)


def _open_to_a_group(path: Path) -> None:
    path.mkdir()
    os.chown(path, 0, NOBODY)
    path.chmod(0o770)


PLANTS = [_plant_link, _give_away, _open_to_all, _open_to_a_group]


def _plant(plant: Callable[[Path], None], path: str) -> None:
    Path(VICTIM).mkdir()
    os.chown(VICTIM, NOBODY, NOBODY)
    Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
    plant(Path(path))


FOLDERS = [
    f"{NETWORKS}/net1",
    f"{RUN}/hostports",
    f"{RUN}/hostports/by-owner",
    f"{RUN}/nftables",
    f"{RUN}/bridges",
]


@as_root
@pytest.mark.parametrize(
    ("folder", "plant"),
    [*((each, _plant_link) for each in FOLDERS), *((FOLDERS[0], each) for each in PLANTS[1:])],
)
def test_a_folder_in_others_hands_is_refused(
    one_worker: Host, folder: str, plant: Callable[[Path], None]
) -> None:
    _refuses(one_worker, folder, plant)


@as_root
def test_the_folder_of_all_that_is_ours_is_refused_in_others_hands(host: Host) -> None:
    """No server lives there either, so that each call is a process of its own."""
    _refuses(host, RUN, _give_away)


def _refuses(host: Host, folder: str, plant: Callable[[Path], None]) -> None:
    sandbox, chain = host.sandbox("c1"), Chain(host)
    host.call(_plant, plant, folder)
    answer = chain.add(sandbox)
    assert answer.code == Code.STORE
    assert f"could not use {folder}: " in answer.msg
    assert answer.json["details"]
    assert host.run(["find", VICTIM, "-mindepth", "1"]) == ""
    # Without it the call succeeds.
    chain.delete(sandbox)
    host.call(_clear, folder)
    chain.add(sandbox).must()


def _clear(folder: str) -> None:
    if Path(folder).is_symlink():
        Path(folder).unlink()
    else:
        shutil.rmtree(folder)


@as_root
def test_a_link_above_the_store_is_followed_if_it_is_roots(host: Host) -> None:
    """An administrator may keep the pools elsewhere; the Go plugin follows the link, too."""
    sandbox, chain = host.sandbox("c1"), Chain(host)
    host.run(["mkdir", "/run/elsewhere"])
    host.run(["ln", "-s", "/run/elsewhere", NETWORKS])
    chain.add(sandbox).must()
    assert host.run(["ls", "/run/elsewhere/net1"]).split() == ["10.1.0.2", "last_reserved_ip.0", "lock"]
    host.run(["chown", "-h", "nobody", NETWORKS])
    conf = {"cniVersion": "1.0.0", "name": "net2", "ipam": {"type": scene.IPAM, "subnet": "10.2.0.0/24"}}
    answer = host.plugin(scene.IPAM, "ADD", conf, netns=sandbox)
    assert answer.code == Code.STORE
    assert f"could not use {NETWORKS}: it belongs to user {NOBODY}" in answer.msg
    assert host.run(["ls", "/run/elsewhere"]).split() == ["net1"]


RESULTS = "/var/lib/cni/results"
LO = {"cniVersion": "1.0.0", "name": "lo", "plugins": [{"type": scene.LOOPBACK}]}


def _configure_lo(host: Host) -> None:
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    host.call(Path("/etc/cni/net.d/lo.conflist").write_text, json.dumps(LO))


@as_root
@pytest.mark.parametrize("plant", PLANTS)
def test_a_result_cache_in_others_hands_is_neither_written_nor_run(
    host: Host, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    """The cached result names the plugins that a DEL runs when the network is not configured any more."""
    sandbox, command = host.sandbox("c1"), Command(tmp_path, host.bindir)
    (tmp_path / "evil").write_text(f"#!/bin/sh\necho >>{VICTIM}-ran\n")
    (tmp_path / "evil").chmod(0o755)
    forged = LO | {"plugins": [{"type": "evil"}]}
    entry = Entry("lo", container_id(sandbox.path), "eth0", json.dumps(forged).encode(), sandbox.path)

    def pycni(verb: str) -> str:
        env = BARE_ENV | {"CNI_PATH": f"{host.bindir}:{tmp_path}"}
        return command.run(host.place, verb, "lo", sandbox.path, "--json", env=env, check=False).stdout

    # So it would be without the look at the folder.
    host.call(Cache().write, entry)
    pycni("del")
    host.run(["rm", f"{VICTIM}-ran"])
    host.run(["rm", "-r", RESULTS])

    host.call(_plant, plant, RESULTS)
    _configure_lo(host)
    assert f"could not use {RESULTS}: " in pycni("add")
    host.run(["rm", "/etc/cni/net.d/lo.conflist"])
    assert host.run(["find", f"{RESULTS}/", "-mindepth", "1"]) == ""
    host.call((Path(RESULTS) / f"lo-{entry.container_id}-eth0").write_bytes, show_entry(entry))
    pycni("del")
    assert host.run(["find", f"{VICTIM}-ran"], check=False) == ""


# ---- files ----


def _plant_file(path: str) -> None:
    Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
    Path(path).unlink(missing_ok=True)
    Path(path).symlink_to(VICTIM)


RECORD = f"{RUN}/nftables/{owners.tag(Owner('net1', 'c1', 'eth0'))}"
# What becomes of a link in the place of each of them.
FILES = {
    f"{NETWORKS}/net1/10.1.0.2": "takes the address",
    f"{NETWORKS}/net1/last_reserved_ip.0": "is replaced",
    f"{NETWORKS}/net1/lock": "is refused",
    f"{NETWORKS}/net1/.unfinished-lease": "is replaced",
    f"{RUN}/hostports.lock": "is refused",
    f"{RUN}/hostports/tcp-8080": "is refused",
    f"{RUN}/hostports/.unfinished-claim": "is replaced",
    f"{RUN}/bridges/cni0.lock": "is refused",
    f"{RECORD}.masquerade": "is refused",
    f"{RECORD}.masquerade.unfinished": "is replaced",
    f"{RECORD}.forward": "is refused",
    f"{RECORD}.forward.unfinished": "is replaced",
}


@pytest.mark.parametrize("content", ["precious", None])
@pytest.mark.parametrize("file", FILES)
def test_a_link_in_the_place_of_a_file_is_never_followed(
    one_worker: Host, file: str, content: str | None
) -> None:
    host = one_worker
    sandbox, chain = host.sandbox("c1"), Chain(host)
    if content:
        host.call(Path(VICTIM).write_text, content)
    host.call(_plant_file, file)
    answer = chain.add(sandbox)
    assert answer.code == (Code.STORE if FILES[file] == "is refused" else 0), answer
    assert answer.ok or file in answer.msg
    if FILES[file] == "takes the address":
        assert answer.addresses == ["10.1.0.3"]
    chain.delete(sandbox)
    host.plugin(scene.IPAM, "GC", chain.gc)
    left = host.run(["cat", VICTIM], check=False)
    assert left == (content or "")
    assert host.run(["sh", "-c", f"ls {VICTIM} 2>/dev/null || true"]).strip() == (VICTIM if content else "")


def test_a_planted_record_names_no_file_elsewhere(host: Host) -> None:
    """A claim is released by removing files that are named after it."""
    host.call(_claim_and_forge, Owner("net1", "c1", "eth0"))
    assert host.run(["cat", f"{VICTIM}-tcp"]) == "[]"


def _claim_and_forge(owner: Owner) -> None:
    victim = Path(f"{VICTIM}-tcp")
    victim.write_text("[]")
    with ledger.claim(owner, [PortMapping("tcp", 8080, 80)], "", Undo()):
        pass
    [path] = (Path(RUN) / "hostports/by-owner").iterdir()
    path.write_text(path.read_text().replace('["tcp", 8080, ""]', '["../../victim", "tcp", ""]'))
    assert "victim" in path.read_text()
    ledger.release(owner)


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_of_this_suite_are_for_their_user_alone(host: Host, tmp_path: Path, backend: str) -> None:
    """But for host-local's folders, which are as the Go plugin makes them."""
    sandbox = host.sandbox("c1")
    umask = os.umask(0)
    try:
        Chain(host, backend).add(sandbox).must()
        _configure_lo(host)
        host.run([str(make_command(tmp_path, host.bindir)), "add", "lo", sandbox.path])
    finally:
        os.umask(umask)
    assert host.run(["find", RUN, "/var/lib/cni/results", "-perm", "/077"]) == ""
    shown = host.run(["find", NETWORKS, "-printf", "%m %P\\n"])
    assert sorted(shown.splitlines()) == [
        "600 net1/10.1.0.2", "600 net1/last_reserved_ip.0", "750 net1/lock", "755 ", "755 net1",
    ]  # fmt: skip

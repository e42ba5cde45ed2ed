"""A node with attachments of an earlier release goes on with today's plugins.

`tests/data/release-*` has what each release left for the containers of `tests/support/release_state.py`. The
tests make the same on a host, as the release itself may not be at hand.
"""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.state import executables
from cni.testing import Host, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.warm import control
from plugin_table import ROOT, declared, packages
from tests.support import release_state, scene
from tests.support.command import Command
from tests.support.release_state import CONTAINERS, PORT, capabilities

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.modes("warm")

RELEASES = sorted(path.name for path in (ROOT / "tests/data").glob("release-*"))
_BUILD = "0.1.0-634e8251585a"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PUBLISHED = {name: port for name, (_, port) in CONTAINERS.items() if port}
# MAC addresses and what follows from them, and the number of the folder of nftables records.
_BY_CHANCE = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b|\bfe80::[0-9a-f:]+|(?<=\"comment\": \")\d+:\d+")


class Node:
    """A host with the containers of a release, and today's command and plugins."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self._command = Command(folder, host.bindir)
        self.env = {"PATH": _PATH, "CNI_PATH": str(host.bindir)}

    def run(self, *arguments: str, port: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command; fail the test if it fails, unless `check` is false."""
        env = self.env | capabilities(port)
        done = self._command.run(self.host.place, *arguments, env=env, check=False)
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done

    def add(self, network: str, netns: str, port: int) -> None:
        self.run("add", network, netns, port=port)

    def delete(self, name: str) -> None:
        self.run("del", CONTAINERS[name][0], f"/run/netns/{name}")

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the attachments that `pycni show` lists, by the name of their namespace."""
        shown = json.loads(self.run("show", "--json").stdout)
        return {
            each["netns"].rpartition("/")[2]: each
            for network in shown["networks"]
            for each in network["attachments"]
        }

    def check_all(self, *names: str) -> None:
        """Call CHECK for containers, and try what they are for: their addresses and published ports."""
        attached = self.results()
        for name in names:
            network, port = CONTAINERS[name]
            self.run("check", network, f"/run/netns/{name}")
            assert attached[name]["problems"] == [], attached[name]
            sandbox = release_state.sandbox(self.host, name)
            outside = self.host.outside
            with sandbox.serve(PORT), outside.sandbox.serve(PORT):
                for address in attached[name]["addresses"]:
                    assert self.host.reaches(address.split("/")[0], PORT, timeout_s=5)
                if attached[name]["addresses"]:
                    # The rules hide where it comes from.
                    seen = {sandbox.dial(each, PORT).address for each in (outside.address, outside.address6)}
                    assert seen == {outside.host_address, outside.host_address6}
                if port:
                    assert outside.sandbox.reaches(outside.host_address, port, timeout_s=5)
                    assert outside.sandbox.reaches(outside.host_address6, port, timeout_s=5)


@pytest.fixture(params=RELEASES)
def node(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Node:
    host.outside.sandbox.place  # noqa: B018 - the way outside comes first, as on a node
    release_state.replay(host, ROOT / "tests/data" / request.param)
    return Node(host, tmp_path)


@pytest.fixture
def remaining(bindir: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Yield what today's plugins leave on a host for the next container when all are deleted."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    folder = tmp_path / "today"
    folder.mkdir()
    with Host(bindir) as host:
        host.outside.sandbox.place  # noqa: B018 - as above
        warm.set_up(host.place)
        today = Node(host, folder)
        release_state.attach(host, today.add)
        for name in CONTAINERS:
            today.delete(name)
        yield _lines(host)


def _lines(host: Host) -> list[str]:
    found = host.snapshot()
    # The settings of the tests' own server are no state of a plugin.
    files = [line for line in found.files if not line.startswith("/etc/cni/pycni/")]
    kinds = [found.links, found.addresses, found.routes, found.rules, files]
    return sorted(_BY_CHANCE.sub("BY CHANCE", line) for lines in kinds for line in lines)


def _more(node: Node, remaining: list[str]) -> list[str]:
    """List what there is that today's plugins would not have left; they may leave more than a release did."""
    return sorted({*_lines(node.host)} - {*remaining})


def test_there_is_a_release() -> None:
    assert "release-0.1.0" in RELEASES


def test_attachments_pass_check_and_carry_traffic(node: Node) -> None:
    node.check_all(*CONTAINERS)


def test_a_new_container_gets_a_free_address_and_no_taken_port(node: Node) -> None:
    before = node.results()
    node.host.sandbox("c9")
    for network, last in (("web", 4), ("old", 3)):
        node.host.sandbox(f"new-{network}")
        result = json.loads(node.run("add", network, f"/run/netns/new-{network}", port=9000 + last).stdout)
        number = {"web": 8, "old": 9}[network]
        got = [each["address"] for each in result["ips"]]
        assert got == [f"10.{number}.0.{last}/24", f"fd0{number}::{last}/64"]
    for network, port in (("web", 8080), ("web", 8081), ("old", 8081), ("old", 8080)):
        done = node.run("add", network, "/run/netns/c9", "--undo", "--json", port=port, check=False)
        [holder] = [name for name, number in _PUBLISHED.items() if number == port]
        error = json.loads(done.stdout)
        assert (error["code"], str(port) in error["msg"]) == (Code.PORT_TAKEN, True), error
        assert f'"{before[holder]["containerID"]}"' in error["msg"], error
    node.check_all(*CONTAINERS)


def test_everything_is_deleted(node: Node, remaining: list[str]) -> None:
    for name in CONTAINERS:
        node.delete(name)
        node.delete(name)
    assert node.results() == {}
    assert _more(node, remaining) == []


def test_everything_is_deleted_when_the_namespaces_are_gone(node: Node, remaining: list[str]) -> None:
    for name in CONTAINERS:
        release_state.sandbox(node.host, name).delete(settled=True)
        node.host.run(["sh", "-c", f"ip netns add {name}"])
        node.delete(name)
    assert _more(node, remaining) == []


def test_gc_takes_what_is_dead_and_nothing_else(node: Node, remaining: list[str]) -> None:
    before = _lines(node.host)
    for network in ("web", "old", "flat"):
        node.run("gc", network, "--dead-only")
    assert _lines(node.host) == before
    release_state.sandbox(node.host, "c1").delete(settled=True)
    release_state.sandbox(node.host, "c3").delete(settled=True)
    for network in ("web", "old", "flat"):
        node.run("gc", network, "--dead-only")
    assert set(node.results()) == {"c2", "c4"}
    node.check_all("c2", "c4")
    for name in ("c2", "c4"):
        node.delete(name)
        release_state.sandbox(node.host, name)
    for name in ("c1", "c3"):
        node.host.sandbox(name)
    assert _more(node, remaining) == []


def test_repair_restores_lost_objects(node: Node) -> None:
    """Rules that a reload of the firewall deletes, and a bridge's port."""
    attached = node.results()
    node.host.run(["nft", "flush", "ruleset"])
    for name, (network, _) in CONTAINERS.items():
        inner = release_state.sandbox(node.host, name)
        if network == "flat":
            node.host.run(["ip", "link", "set", attached[name]["hostLink"]["name"], "nomaster"])
        assert node.run("check", network, inner.path, check=False).returncode
    repaired = json.loads(node.run("repair", "--json").stdout)["attachments"]
    assert {each["netns"].rpartition("/")[2]: each["state"] for each in repaired} == dict.fromkeys(
        CONTAINERS, "repaired"
    )
    node.check_all(*CONTAINERS)


def test_a_server_of_the_release_serves_no_call_of_todays_plugins(launcher: Path, tmp_path: Path) -> None:
    """Executables are replaced in place while the server that they have started runs on."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    table = packages(declared())
    bindir = make_warm_bindir(tmp_path, table, launcher, _BUILD)
    with Host(bindir) as host:
        warm.set_up(host.place)
        call = partial(host.plugin, scene.LOOPBACK, "VERSION", {})
        call().must()
        [old] = host.call(control.find)
        assert old.build == _BUILD
        while host.call(control.status, old)["requests"] != 1:
            # The server counts a call after its answer.
            time.sleep(0.02)
        program = executables.launcher(launcher.read_bytes(), str(tmp_path), "today")
        executables.put(bindir, table, program)
        for _ in range(3):
            call().must()
        servers = {each.build: each for each in host.call(control.find)}
        assert host.call(control.status, servers["today"])["requests"] >= 2
        assert _BUILD not in servers or host.call(control.status, old)["requests"] == 1

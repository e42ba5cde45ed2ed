"""Whole networks as projects use them change hands: one suite attaches, the other one checks and detaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench import networks
from bench.sides import IPTABLES, Side
from cni.testing import GO, OURS
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from bench.networks import Network
    from cni.testing import Host

pytestmark = [pytest.mark.interop, pytest.mark.modes("warm"), scene.needs_go]
NETWORKS = {each.title: each for each in networks.read()}


class Chain:
    """A network's plugins, called in order for one container after another."""

    def __init__(self, host: Host, network: Network) -> None:
        self.host = host
        self.entries = [*network.before, *network.chain]
        self.side = Side("", host.bindir, IPTABLES if network.has_backend else "")
        if network.master:
            peer = f"{network.master}p"
            host.run(["ip", "link", "add", network.master, "type", "veth", "peer", "name", peer])
            for name in (network.master, peer):
                host.run(["ip", "link", "set", name, "addrgenmode", "none", "up"])

    def confs(self, number: int) -> list[dict[str, Any]]:
        return list(networks.Member(number, self.entries).confs(self.side))

    def add(self, number: int, bindir: Path | None) -> dict[str, Any]:
        self.host.sandbox(f"c{number}")
        result: dict[str, Any] = {}
        for conf in self.confs(number):
            given = conf | ({"prevResult": result} if result else {})
            result = self.call("ADD", number, given, bindir)
        return result

    def check(self, number: int, result: dict[str, Any]) -> None:
        """Let ours check. The Go plugins' CHECK of portmap fails for each container without IPv6."""
        for conf in self.confs(number):
            self.call("CHECK", number, conf | {"prevResult": result}, OURS)

    def delete(self, number: int, result: dict[str, Any], bindir: Path | None) -> None:
        for conf in reversed(self.confs(number)):
            self.call("DEL", number, conf | {"prevResult": result}, bindir)
        self.host.run(["ip", "netns", "delete", f"c{number}"])

    def gc(self) -> None:
        valid = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
        for conf in self.confs(0):
            self.host.plugin(conf["type"], "GC", conf | valid, container_id="", ifname="").must()

    def call(self, verb: str, number: int, conf: dict[str, Any], bindir: Path | None) -> dict[str, Any]:
        name = f"c{number}"
        answer = self.host.plugin(
            conf["type"], verb, conf, bindir=bindir, netns=f"/run/netns/{name}", container_id=name
        )
        assert answer.ok, (verb, conf["type"], answer)
        return answer.json if verb == "ADD" else {}


@pytest.mark.parametrize("title", NETWORKS)
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_the_other_suite_removes_a_whole_chain(host: Host, title: str, *, go_adds: bool) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    chain = Chain(host, NETWORKS[title])
    # What all containers share, of both suites.
    for number, bindir in ((1, GO), (2, OURS)):
        chain.delete(number, chain.add(number, bindir), bindir)
    before = host.snapshot()
    result = chain.add(3, maker)
    assert before.differences(host.snapshot()) != []
    chain.check(3, result)
    chain.delete(3, result, other)
    if not go_adds:
        # The Go plugins do not know our records.
        chain.gc()
    # GC removes the chain of a gateway that the host no longer has, as without a bridge.
    changes = before.differences(host.snapshot())
    assert [line for line in changes if not (line.startswith("- rules: ") and "CNI-GW-" in line)] == []

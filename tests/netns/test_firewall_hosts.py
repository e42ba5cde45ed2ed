"""Hosts with iptables-nft, legacy iptables, both, nft only or nothing: found out, and made to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from tests.netns.firewall_hosts import NFT, equipped, plain, rules, suffixed, variants_used
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cni.testing import Answer, Sandbox

BOTH = suffixed("nft", "legacy")
# What a host has, and which variant of iptables is to be used there; "" for nftables.
KINDS: dict[str, tuple[Mapping[str, str], str]] = {
    "iptables-nft": (plain("nft"), "nft"),
    "iptables-legacy": (plain("legacy"), "legacy"),
    "both, iptables is nf_tables": (BOTH | plain("nft") | NFT, "nft"),
    "both, iptables is legacy": (BOTH | plain("legacy") | NFT, "legacy"),
    "both, no plain name": (BOTH | NFT, "nft"),
    "only names with nft": (suffixed("nft"), "nft"),
    "only names with legacy": (suffixed("legacy"), "legacy"),
    "nft": (NFT, ""),
}
LEGACY = plain("legacy")
# A rule of another program, which makes the kernel load legacy iptables' table.
FOREIGN = ["iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-d", "198.51.100.9", "-j", "ACCEPT"]

# The others differ from these in names only.
WHOLE = ("iptables-nft", "iptables-legacy", "both, iptables is legacy", "only names with legacy", "nft")


@pytest.fixture
def host(served_bindir: Path) -> Iterator[Host]:
    """Yield a host whose plugins a warm server serves, as on a node."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(served_bindir) as host:
        warm.set_up(host.place, workers=2)
        yield host


@dataclass
class Chain:
    """bridge with host-local and masquerading, then portmap; nothing says which backend they should use."""

    host: Host
    version: str = "1.1.0"
    families: int = 2
    name: str = "net1"

    def __post_init__(self) -> None:
        ranges = [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]][: self.families]
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}][: self.families]
        ipam = {"type": scene.IPAM, "ranges": ranges, "routes": routes}
        common = {"cniVersion": self.version, "name": self.name}
        self.bridge = common | {
            "type": scene.INTERFACE,
            "bridge": "br0",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": True,
            "ipam": ipam,
        }
        self.portmap = common | {"type": scene.PORTS}
        self.results: dict[str, dict[str, Any]] = {}

    def _ports(self, port: int) -> dict[str, Any]:
        return {
            "runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}
        }

    def add(self, sandbox: Sandbox, port: int = 8080) -> dict[str, Any]:
        result = self._call("ADD", self.bridge, sandbox).must()
        conf = self.portmap | self._ports(port) | {"prevResult": result}
        self.results[sandbox.name] = self._call("ADD", conf, sandbox).must()
        return self.results[sandbox.name]

    def check(self, sandbox: Sandbox, port: int = 8080) -> list[Answer]:
        previous = {"prevResult": self.results[sandbox.name]}
        confs = (self.bridge | previous, self.portmap | self._ports(port) | previous)
        return [self._call("CHECK", conf, sandbox) for conf in confs]

    def delete(self, sandbox: Sandbox, port: int = 8080) -> list[Answer]:
        """Call DEL of both, as a runtime does that goes on after errors."""
        previous = {"prevResult": self.results[sandbox.name]}
        confs = (self.portmap | self._ports(port) | previous, self.bridge | previous)
        return [self._call("DEL", conf, sandbox) for conf in confs]

    def collect(self, valid: list[str]) -> list[Answer]:
        attachments = [{"containerID": each, "ifname": "eth0"} for each in valid]
        confs = (self.bridge, self.portmap)
        return [self._ask("GC", conf | {"cni.dev/valid-attachments": attachments}) for conf in confs]

    def status(self) -> list[Answer]:
        return [self._ask("STATUS", conf) for conf in (self.bridge, self.portmap)]

    def _ask(self, verb: str, conf: Mapping[str, Any]) -> Answer:
        return self.host.plugin(str(conf["type"]), verb, conf, env={"CNI_CONTAINERID": "", "CNI_IFNAME": ""})

    def _call(self, verb: str, conf: Mapping[str, Any], sandbox: Sandbox) -> Answer:
        return self.host.plugin(str(conf["type"]), verb, conf, netns=sandbox, container_id=sandbox.name)


def reached(host: Host, sandbox: Sandbox) -> None:
    """See that a published port answers from everywhere, and that what leaves has the host's address."""
    outside = host.outside
    with sandbox.serve(80):
        assert outside.sandbox.dial(outside.host_address, 8080).address == outside.address
        assert outside.sandbox.dial(outside.host_address6, 8080).address == outside.address6
        assert host.dial("127.0.0.1", 8080)
        assert sandbox.dial(outside.host_address, 8080)
    with outside.sandbox.serve(81):
        assert sandbox.dial(outside.address, 81).address == outside.host_address
        assert sandbox.dial(outside.address6, 81).address == outside.host_address6


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WHOLE])
def test_the_names_of_programs_tell_the_variant(host: Host, kind: str) -> None:
    programs, variant = KINDS[kind]
    chain, c1 = Chain(host), host.sandbox("c1")
    with equipped(host, programs):
        chain.add(c1)
        assert [answer.stdout for answer in chain.check(c1) if not answer.ok] == []
    assert variants_used(host) == {variant}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_host_of_any_kind_attaches_checks_detaches_and_collects(host: Host, kind: str) -> None:
    programs, variant = KINDS[kind]
    outside, chain, c1, c2 = host.outside, Chain(host), host.sandbox("c1"), host.sandbox("c2")
    with equipped(host, programs):
        assert [answer.status for answer in chain.status()] == [0, 0]
        chain.add(c2, 8082)
        assert all(answer.ok for answer in chain.delete(c2, 8082))
    before = host.snapshot()
    with equipped(host, programs):
        chain.add(c1)
        reached(host, c1)
        assert [answer.stdout for answer in chain.check(c1) if not answer.ok] == []
    assert variants_used(host) == ({variant} if variant else set())
    with equipped(host, programs):
        assert [answer.stdout for answer in chain.delete(c1) if not answer.ok] == []
        assert not outside.sandbox.reaches(outside.host_address, 8080)
    assert before.differences(host.snapshot()) == []
    with equipped(host, programs):
        chain.add(c2, 8082)
        assert [answer.stdout for answer in chain.collect([]) if not answer.ok] == []
    # GC deletes unused nftables tables.
    assert [line for line in before.differences(host.snapshot()) if not line.startswith("- rules: ")] == []


@pytest.mark.parametrize("programs", [BOTH, BOTH | plain("nft")], ids=["no plain name", "plain is nf_tables"])
def test_rules_in_legacy_tables_decide_only_where_no_iptables_is_the_hosts(
    host: Host, programs: Mapping[str, str]
) -> None:
    chain, c1 = Chain(host), host.sandbox("c1")
    host.run(FOREIGN)
    before = rules(host, "legacy", "")
    with equipped(host, programs):
        chain.add(c1)
    assert variants_used(host, "CNI-DN-") == ({"nft"} if "iptables" in programs else {"legacy"})
    with equipped(host, programs):
        assert [answer.stdout for answer in chain.delete(c1) if not answer.ok] == []
    assert variants_used(host, "CNI-DN-") == set()
    assert [rule for rule in rules(host, "legacy", "") if "CNI-" not in rule] == before


def test_check_names_the_rule_that_legacy_iptables_lost(host: Host) -> None:
    chain, c1 = Chain(host), host.sandbox("c1")
    with equipped(host, LEGACY):
        chain.add(c1)
    host.run(["iptables-legacy", "-t", "nat", "-F", "CNI-HOSTPORT-DNAT"])
    with equipped(host, LEGACY):
        bridge, portmap = chain.check(c1)
    assert bridge.ok
    assert portmap.code == 104
    assert "CNI-HOSTPORT-DNAT" in portmap.msg


def test_status_is_50_and_says_why_on_a_host_with_neither(host: Host) -> None:
    chain = Chain(host)
    with equipped(host, {}):
        answers = chain.status()
    for answer in answers:
        assert answer.code == 50
        assert "neither iptables nor nftables" in answer.msg
        assert "iptables is not installed" in answer.json["details"]
        assert "nft is not installed" in answer.json["details"]


def test_an_add_on_a_host_with_neither_leaves_nothing(host: Host) -> None:
    chain, c1 = Chain(host), host.sandbox("c1")
    before = host.snapshot()
    with equipped(host, {}):
        answer = chain._call("ADD", chain.bridge, c1)  # noqa: SLF001 - add() must succeed
    assert answer.code == 50
    assert "neither iptables nor nftables" in answer.msg
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize("after", ["nft", "nothing", "legacy", "iptables-nft"])
@pytest.mark.parametrize("before", ["nft", "legacy"])
def test_del_cleans_up_or_names_what_is_left_when_the_programs_have_changed(
    host: Host, before: str, after: str
) -> None:
    programs = {"nft": NFT, "nothing": {}, "legacy": LEGACY, "iptables-nft": plain("nft")}[after]
    chain, c1, c2 = Chain(host), host.sandbox("c1"), host.sandbox("c2")
    with equipped(host, plain(before)):
        chain.add(c1)
        chain.add(c2, 8082)
    with equipped(host, programs):
        answers = chain.delete(c1)
    mine = rules(host, before, '"c1')
    if before == "nft" or after == "legacy":
        assert [answer.stdout for answer in answers if not answer.ok] == []
        assert mine == []
        assert rules(host, before, '"c2')
        return
    for answer in answers:
        assert answer.code == 101
        chain_left = answer.msg.split()[1]
        assert any(chain_left in rule for rule in mine)
        assert "iptables-legacy is not installed" in answer.msg
    # The next DEL, on a host that has the program again, takes it away.
    with equipped(host, LEGACY):
        assert [answer.stdout for answer in chain.delete(c1) if not answer.ok] == []
    assert rules(host, before, '"c1') == []


def test_gc_names_legacy_rules_that_no_program_can_remove(host: Host) -> None:
    chain, c1 = Chain(host), host.sandbox("c1")
    with equipped(host, LEGACY):
        chain.add(c1)
    with equipped(host, NFT):
        answers = chain.collect([])
    assert {answer.code for answer in answers} == {101}
    assert all("iptables-legacy is not installed" in answer.msg for answer in answers)

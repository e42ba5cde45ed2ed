"""Rules are the same values by lines, by netlink, and as python-iptables reads them by libiptc."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.firewall import nft
from cni.firewall.intents import Gateway, Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import netlink
from cni.firewall.iptables.backend import Iptables
from cni.firewall.iptables.execute import Tool
from cni.firewall.iptables.rule import Rule, parse_rule
from cni.firewall.iptables.rules import NAT, masquerade, port_forward
from cni.undo import Undo
from tests.netns.firewall_hosts import plain

if TYPE_CHECKING:
    from cni.firewall.iptables.rule import Match
    from cni.testing import Host

OWNER = Owner("net-1", "0c1d", "eth0")
TARGETS = (ip_interface("10.22.0.2/20"), ip_interface("fd00:22::2/64"))
GATEWAYS = (
    Gateway(ip_address("10.22.0.1"), TARGETS[0].network),
    Gateway(ip_address("fd00:22::1"), TARGETS[1].network),
)
MAPPINGS = (
    PortMapping("tcp", 8080, 80),
    PortMapping("tcp", 8443, 443),
    PortMapping("udp", 53, 5353, ip_address("192.0.2.1")),
    PortMapping("udp", 54, 5354, ip_address("2001:db8::1")),
)
FORWARD = PortForward(OWNER, MAPPINGS, TARGETS, gateways=GATEWAYS)
MASQUERADED = Masquerade(OWNER, TARGETS, GATEWAYS)


def _use(variant: str) -> None:
    Path("/run/bin").mkdir()
    for name, program in plain(variant).items():
        Path("/run/bin", name).symlink_to(f"/usr/sbin/{program}")
    os.environ["PATH"] = f"/run/bin:{os.environ['PATH']}"


def _apply(variant: str) -> None:
    _use(variant)
    Iptables().apply(FORWARD, Undo())
    Iptables().apply(MASQUERADED, Undo())


def _read(variant: str, version: int) -> list[Rule]:
    return Tool(version, NAT, variant=f"-{variant}").list_all()


def _read_by_libiptc(version: int) -> dict[str, list[dict[str, Any]]]:
    import iptc  # type: ignore[import-untyped]
    import iptc.easy  # type: ignore[import-untyped]

    table = {4: iptc.Table, 6: iptc.Table6}[version](NAT)
    return {
        chain.name: [iptc.easy.decode_iptc_rule(rule, ipv6=version == 6) for rule in chain.rules]
        for chain in table.chains
    }


def _as_libiptc(rule: Rule) -> dict[str, Any]:
    """Return a rule in the form of python-iptables."""
    name, *options = rule.target
    found: dict[str, Any] = {
        "counters": (0, 0),
        "target": {name: {options[0].removeprefix("--"): options[1]}} if options else name,
    }
    for match in rule.matches:
        found |= _match_as_libiptc(match)
    return found


def _match_as_libiptc(match: Match) -> dict[str, Any]:
    sign = "!" if match[0] == "!" else ""
    option, *values = match[1:] if sign else match
    if option != "-m":
        return {{"-s": "src", "-d": "dst", "-p": "protocol"}[option]: f"{sign}{values[0]}"}
    extension, *rest = values
    is_not = rest[0] == "!"
    name, value = rest[1:] if is_not else rest
    return {extension: {name.removeprefix("--"): ["!", value] if is_not else value}}


@pytest.mark.parametrize("version", [4, 6])
def test_libiptc_reads_the_same_rules_of_a_legacy_table(host: Host, version: int) -> None:
    host.call(_apply, "legacy")
    ours = host.call(_read, "legacy", version)
    wanted = (*port_forward(FORWARD, version).made, *masquerade(MASQUERADED, version).made)
    assert set(wanted) <= set(ours)
    by_chain: dict[str, list[dict[str, Any]]] = {}
    for rule in ours:
        by_chain.setdefault(rule.chain, []).append(_as_libiptc(rule))
    # Each version in a process of its own: libxtables keeps the family that it was first used for.
    found = host.call(_read_by_libiptc, version)
    assert {chain: rules for chain, rules in found.items() if rules} == by_chain


def _read_by_netlink() -> list[Rule | None]:
    chains = nft.list_chains(nft.IPV4, NAT)
    return [netlink.read_rule(rule) for chain in chains for rule in nft.list_rules(nft.IPV4, NAT, chain)]


def test_netlink_reads_the_rules_that_the_program_has_written(host: Host) -> None:
    host.call(_apply, "nft")
    ours = host.call(_read, "nft", 4)
    found = host.call(_read_by_netlink)
    assert None not in found
    assert set(found) == set(ours)
    assert len(found) == len(ours)


EACH_PART = [
    Rule(NAT, "TEST", (("-s", "10.0.0.0/8"), ("-p", "tcp")), ("RETURN",)),
    Rule(NAT, "TEST", (("-d", "10.1.2.128/25"), ("-m", "mark", "--mark", "0x1/0xff")), ("ACCEPT",)),
    Rule(NAT, "TEST", (("!", "-d", "192.168.0.0/16"),), ("MASQUERADE",)),
    Rule(NAT, "TEST", (("-m", "comment", "--comment", 'a "b" \\ c'),), ("MARK", "--set-xmark", "0x10/0x10")),
    Rule(
        NAT,
        "TEST",
        (("-p", "udp"), ("-m", "udp", "--dport", "53")),
        ("DNAT", "--to-destination", "10.0.0.1:5"),
    ),
    Rule(NAT, "TEST", (("-p", "tcp"), ("-m", "multiport", "--dports", "1,2,65535")), ("ACCEPT",)),
    Rule(NAT, "TEST", (("-m", "addrtype", "!", "--src-type", "LOCAL"),), ("ACCEPT",)),
    Rule(NAT, "TEST", (("-m", "addrtype", "--dst-type", "LOCAL"),), ("ACCEPT",)),
]


def _make_table(host: Host, table: str) -> None:
    host.run(["iptables-nft", "-t", table, "-N", "OTHER"])
    host.run(["iptables-nft", "-t", table, "-X", "OTHER"])


@pytest.mark.parametrize("writer", ["netlink", "program"])
def test_each_match_and_target_is_read_as_it_was_written(host: Host, writer: str) -> None:
    _make_table(host, NAT)
    if writer == "netlink":
        assert host.call(netlink.make_chain, "test", "TEST", EACH_PART)
    else:
        lines = ["-N TEST", *(each.line for each in EACH_PART)]
        host.call(Tool(4, NAT, variant="-nft").apply, "test", lines)
    found = host.call(nft.list_rules, nft.IPV4, NAT, "TEST")
    assert list(map(netlink.read_rule, found)) == EACH_PART
    assert [each for each in host.call(_read, "nft", 4) if each.chain == "TEST"] == EACH_PART


OTHERS = [
    "-p tcp -m tcp --dport 80:90 -j ACCEPT",
    "-i lo -j ACCEPT",
    "-p tcp -m tcp ! --dport 80 -j ACCEPT",
    "-m conntrack --ctstate NEW -j ACCEPT",
    "-p udp -m udp --sport 53 -j ACCEPT",
    "! -p tcp -j ACCEPT",
    "-m addrtype --dst-type BROADCAST -j ACCEPT",
    "-m mark ! --mark 0x1 -j ACCEPT",
]


@pytest.mark.parametrize("spec", OTHERS)
def test_a_rule_with_other_parts_is_never_taken_for_one_of_ours(host: Host, spec: str) -> None:
    line = f"-A TEST {spec}"
    host.call(Tool(4, NAT, variant="-nft").apply, "test", ["-N TEST", line])
    [found] = host.call(nft.list_rules, nft.IPV4, NAT, "TEST")
    assert netlink.read_rule(found) is None
    [listed] = (each for each in host.call(_read, "nft", 4) if each.chain == "TEST")
    assert listed.line == line
    # What is not known is not written either.
    assert not host.call(netlink.make_chain, "test", "OTHER", [listed._replace(chain="OTHER")])


def test_a_rule_of_another_table_is_written_there(host: Host) -> None:
    rule = Rule("filter", "TEST", (("-s", "10.0.0.0/8"),), ("DROP",))
    _make_table(host, "filter")
    assert host.call(netlink.make_chain, "test", "TEST", [rule])
    assert host.run(["iptables-nft", "-t", "filter", "-S", "TEST"]).splitlines() == ["-N TEST", rule.line]
    assert host.call(Tool(4, "filter", variant="-nft").list_all) == [rule]
    assert rule != parse_rule(NAT, rule.line)

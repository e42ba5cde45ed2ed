"""Legacy tables as read from the kernel, beside what iptables lists."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cni.firewall.iptables import legacy
from cni.firewall.iptables.rule import parse_rule
from cni.firewall.iptables.rules import NAT

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}
BUILT_IN = ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")

versions = pytest.mark.parametrize("version", PROGRAMS)


def restore(host: Host, version: int, lines: list[str]) -> None:
    text = "\n".join(["*nat", *lines, "COMMIT", ""])
    host.run([f"{PROGRAMS[version]}-restore"], text)


def listed(host: Host, version: int) -> dict[str, list[str]]:
    """Return the listed chains, with the chains that their rules jump to, "" for other targets."""
    lines = host.run([PROGRAMS[version], "-t", "nat", "-S"]).splitlines()
    chains: dict[str, list[str]] = {line.split()[1]: [] for line in lines if line[1] in "PN"}
    for rule in filter(None, (parse_rule(NAT, line) for line in lines)):
        chains[rule.chain].append(rule.leads_to if rule.leads_to in chains else "")
    return chains


def seen(version: int) -> dict[str, list[str]]:
    table = legacy.read(version, NAT)
    chains = {
        name: [table.heads.get(offset, "") for _, _, offset in table.entries[first:end]]
        for name, (first, end) in table.chains.items()
    }
    assert {name: len(rules) for name, rules in chains.items()} == {
        name: table.count_rules(name) for name in chains
    }
    return chains


@versions
def test_a_table_is_not_loaded_by_looking(host: Host, version: int) -> None:
    assert host.call(legacy.is_loaded, version, NAT) is False
    assert host.call(legacy.is_loaded, version, NAT) is False
    host.run([PROGRAMS[version], "-t", "nat", "-L"])
    assert host.call(legacy.is_loaded, version, NAT) is True
    assert host.call(seen, version) == {name: [] for name in BUILT_IN}


@versions
@pytest.mark.parametrize("seed", range(5))
def test_chains_and_jumps_are_those_that_iptables_lists(host: Host, version: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same rules in each run
    names = [f"{'c' * chance.randint(1, 20)}{number}" for number in range(chance.randint(1, 12))]
    address = "10.0.0.1" if version == 4 else "fd00::1"
    matches = [
        "",
        f"-s {address}",
        "-p tcp -m tcp --dport 80",
        '-m comment --comment "a jump to c1, it says"',
        "-p udp -m multiport --dports 1,2,3 -m mark --mark 0x2000/0x2000",
    ]
    lines = [f":{name} ACCEPT" for name in BUILT_IN] + [f":{name} -" for name in names]
    for _ in range(60):
        # Jumps lead to later chains only, as the kernel allows no loops.
        chain = chance.choice([*BUILT_IN, *names])
        later = names if chain in BUILT_IN else names[names.index(chain) + 1 :]
        target = chance.choice([*later, "ACCEPT", "RETURN", "MARK --set-xmark 0x1/0x1"])
        lines.append(f"-A {chain} {chance.choice(matches)} -j {target}")
    restore(host, version, lines)
    assert host.call(seen, version) == listed(host, version)


@versions
def test_jumps_are_counted_and_chains_found_by_name(host: Host, version: int) -> None:
    jumps = ["-A OUTPUT -j two", "-A OUTPUT -p tcp -j two", "-A OUTPUT -j one"]
    restore(host, version, [":one -", ":two -", *jumps, "-A two -j ACCEPT"])
    table = host.call(legacy.read, version, NAT)
    assert table.count_jumps("OUTPUT", "two") == 2
    assert table.count_jumps("OUTPUT", "three") == 0
    assert table.count_jumps("three", "two") == 0
    assert (table.count_rules("one"), table.count_rules("two"), table.count_rules("three")) == (0, 1, 0)
    assert host.call(legacy.may_have_chain, version, NAT, "two") is True
    assert host.call(legacy.may_have_chain, version, NAT, "tw") is False

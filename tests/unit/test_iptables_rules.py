"""Intents as iptables rules: names, order and text, without a kernel."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest

from cni.firewall.intents import Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import rules, transaction
from cni.firewall.iptables.rule import Rule, parse_rule

OWNER = Owner("net1", "cid1", "eth0")
TARGET, TARGET6 = ip_interface("10.22.0.2/16"), ip_interface("fd00:22::2/64")
COMMENT = r'-m comment --comment "name: \"net1\" id: \"cid1\""'
CHAIN, DN = "CNI-e8f6f419596f7f47b3468487", "CNI-DN-e8f6f419596f7f47b3468"


@pytest.mark.parametrize(
    ("network", "container_id", "digits"),
    [
        ("net1", "cid1", "e8f6f419596f7f47b3468487"),
        ("podman", "0123456789abcdef" * 4, "a57a867b11d1e93fb32cd24e"),
        ("bridge", "default-" + "a" * 64, "b1a33de0275682428bb3fd2d"),
        ("crio", "x", "67069aad00abb980cc4b3442"),
    ],
)
def test_chain_names_are_those_of_go(network: str, container_id: str, digits: str) -> None:
    owner = Owner(network, container_id, "eth0")
    assert rules.masquerade_chain(owner) == f"CNI-{digits}"
    assert rules.forward_chain(owner) == f"CNI-DN-{digits[:21]}"
    assert rules.old_snat_chain(owner) == f"CNI-SN-{digits[:21]}"


def _content(intent: Masquerade, version: int) -> list[Rule]:
    wanted = rules.masquerade(intent, version)
    return [*wanted.rules, *wanted.last]


def test_traffic_within_a_subnet_is_accepted_before_masquerading() -> None:
    intent = Masquerade(OWNER, (TARGET, ip_interface("10.23.0.2/24"), TARGET6))
    assert [rule.line for rule in _content(intent, 4)] == [
        f"-A {CHAIN} -d 10.22.0.0/16 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} -d 10.23.0.0/24 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} ! -d 224.0.0.0/4 {COMMENT} -j MASQUERADE",
    ]
    assert [rule.line for rule in rules.masquerade(intent, 4).entries] == [
        f"-A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}",
        f"-A POSTROUTING -s 10.23.0.2/32 {COMMENT} -j {CHAIN}",
    ]
    assert [rule.line for rule in _content(intent, 6)] == [
        f"-A {CHAIN} -d fd00:22::/64 {COMMENT} -j ACCEPT",
        f"-A {CHAIN} ! -d ff00::/8 {COMMENT} -j MASQUERADE",
    ]


def _forward(*mappings: PortMapping, **options: object) -> PortForward:
    return PortForward(OWNER, mappings, (TARGET, TARGET6), **options)  # type: ignore[arg-type] # by name


WEB = PortMapping("tcp", 8080, 80)
MATCH = "-p tcp -m tcp --dport 8080"


@pytest.mark.parametrize(
    ("options", "specs"),
    [
        (
            {},
            [f"-s 10.22.0.0/16 {MATCH} -j {rules.SETMARK}", f"-s 127.0.0.1/32 {MATCH} -j {rules.SETMARK}"],
        ),
        ({"masq_all": True}, [f"{MATCH} -j {rules.SETMARK}"]),
        ({"snat": False}, []),
        ({"snat": False, "masq_all": True}, []),
        (
            {"external_set_mark_chain": "KUBE"},
            [f"-s 10.22.0.0/16 {MATCH} -j KUBE", f"-s 127.0.0.1/32 {MATCH} -j KUBE"],
        ),
    ],
)
def test_options_choose_who_is_marked(options: dict[str, object], specs: list[str]) -> None:
    found = [rule.spec for rule in rules.port_forward(_forward(WEB, **options), 4).rules]
    assert found == [*specs, f"{MATCH} -j DNAT --to-destination 10.22.0.2:80"]


@pytest.mark.parametrize(
    ("options", "chains"),
    [
        ({}, [rules.SETMARK, rules.MASQ, rules.DNAT]),
        ({"snat": False}, [rules.DNAT]),
        ({"external_set_mark_chain": "KUBE"}, [rules.DNAT]),
    ],
)
def test_options_choose_the_shared_chains(options: dict[str, object], chains: list[str]) -> None:
    assert [shared.chain for shared in rules.port_forward(_forward(WEB, **options), 4).shared] == chains


def test_an_entry_names_at_most_fifteen_ports_of_one_protocol() -> None:
    mappings = [PortMapping("udp", 53, 53), *(PortMapping("tcp", port, 80) for port in range(8000, 8017))]
    found = [rule.spec for rule in rules.port_forward(_forward(*mappings), 6).entries]
    assert [spec.split(" ")[1] for spec in found] == ["tcp", "tcp", "udp"]
    assert "--dports 8000,8001,8002,8003,8004,8005,8006,8007,8008,8009,8010,8011,8012,8013,8014 " in found[0]
    assert found[1].endswith(f"-m multiport --dports 8015,8016 -j {DN}")


def test_conditions_stand_before_the_jump() -> None:
    intent = _forward(
        WEB, conditions_v4=("-m", "comment", "--comment", 'a "b" c'), conditions_v6=("-s", "::1")
    )
    [entry] = rules.port_forward(intent, 4).entries
    assert entry.spec.endswith(rf'--dports 8080 -m comment --comment "a \"b\" c" -j {DN}')
    [entry] = rules.port_forward(intent, 6).entries
    assert entry.spec.endswith(f"--dports 8080 -s ::1 -j {DN}")


def test_a_host_address_of_the_other_family_has_no_rule_but_its_port_is_named() -> None:
    mapping = PortMapping("tcp", 8443, 443, ip_address("::1"))
    assert rules.port_forward(_forward(mapping), 4).rules == ()
    assert "--dports 8443" in rules.port_forward(_forward(mapping), 4).entries[0].spec
    assert "-d ::1/128 -p tcp" in rules.port_forward(_forward(mapping), 6).rules[0].spec


def test_a_long_comment_is_cut_as_iptables_cuts_it() -> None:
    owner = Owner("net1", "x" * 300, "eth0")
    [entry] = rules.port_forward(PortForward(owner, (WEB,), (TARGET,)), 4).entries
    comment = entry.spec.split("--comment ")[1].split(" -m multiport")[0]
    assert len(comment.replace("\\", "")) == 255 + len('""')
    assert comment.endswith('.."')
    assert rules.find_owner(entry) == ("net1", "x" * (253 - len('dnat name: "net1" id: "')) + "..")


@pytest.mark.parametrize(
    ("line", "owner", "target"),
    [
        (f"-A POSTROUTING -s 10.22.0.2/32 {COMMENT} -j {CHAIN}", ("net1", "cid1"), CHAIN),
        (f"-A {rules.DNAT} -p tcp -j {DN}", None, DN),
        ("-A INPUT -j ACCEPT", None, "ACCEPT"),
        ("-A INPUT -p tcp", None, ""),
        (f"-A {DN} -p tcp -j DNAT --to-destination 10.22.0.2:80", None, "DNAT --to-destination 10.22.0.2:80"),
    ],
)
def test_a_rule_tells_owner_and_target(line: str, owner: tuple[str, str] | None, target: str) -> None:
    rule = parse_rule(rules.NAT, line)
    assert rule is not None
    assert rule.line == line
    assert (rules.find_owner(rule), " ".join(rule.target)) == (owner, target)


@pytest.mark.parametrize("line", ["-N CNI-X", "-P INPUT ACCEPT", ""])
def test_other_lines_are_no_rules(line: str) -> None:
    assert parse_rule(rules.NAT, line) is None


SHARED = rules.port_forward(_forward(WEB), 4).shared
MASQ_JUMP = '-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ'
LOCAL = f"-m addrtype --dst-type LOCAL -j {rules.DNAT}"


def _seen(lines: dict[str, list[str]]) -> dict[str, list[Rule]]:
    return {
        chain: [rule for line in listed if (rule := parse_rule(rules.NAT, line))]
        for chain, listed in lines.items()
    }


COMPLETE = {
    "PREROUTING": [f"-A PREROUTING {LOCAL}"],
    "OUTPUT": [f"-A OUTPUT {LOCAL}"],
    "POSTROUTING": [f"-A POSTROUTING {MASQ_JUMP}"],
    rules.SETMARK: [SHARED[0].rules[0].line],
    rules.MASQ: [SHARED[1].rules[0].line],
    rules.DNAT: [],
}


def _has_not(_rule: Rule) -> bool:
    return False


def test_nothing_is_done_to_shared_chains_that_are_complete() -> None:
    assert transaction.ensure_shared(_seen(COMPLETE), SHARED, _has_not) == []
    assert transaction.missing_chains(_seen(COMPLETE), SHARED) == []


def test_shared_chains_are_made_in_the_order_of_go() -> None:
    commands = transaction.ensure_shared({}, SHARED, _has_not)
    assert [command for command in commands if command.startswith("-N")] == [
        f"-N {rules.SETMARK}",
        f"-N {rules.MASQ}",
        f"-N {rules.DNAT}",
    ]
    assert f"-I POSTROUTING 1 {MASQ_JUMP}" in commands


def test_duplicate_rules_are_removed() -> None:
    seen = {**COMPLETE, "POSTROUTING": COMPLETE["POSTROUTING"] * 3}
    assert transaction.ensure_shared(_seen(seen), SHARED, _has_not) == [
        *[f"-D POSTROUTING {MASQ_JUMP}"] * 3,
        f"-I POSTROUTING 1 {MASQ_JUMP}",
    ]


def test_a_rule_that_reads_otherwise_is_not_made_again() -> None:
    seen = {**COMPLETE, rules.SETMARK: [f"-A {rules.SETMARK} -j MARK --or-mark 0x2000"]}
    assert transaction.ensure_shared(_seen(seen), SHARED, lambda _rule: True) == []


def test_rules_of_another_link_stay_behind_the_new_ones() -> None:
    other = f"-A {DN} {MATCH} -j DNAT --to-destination 10.22.0.9:80"
    commands = transaction.ensure_chain(
        _seen({**COMPLETE, DN: [other]}), rules.port_forward(_forward(WEB), 4), _has_not
    )
    assert commands[0] == f"-F {DN}"
    assert commands.index(other) > commands.index(f"-A {DN} {MATCH} -j DNAT --to-destination 10.22.0.2:80")
    assert not any(command.startswith("-N") for command in commands)


def test_a_chain_goes_with_every_rule_that_leads_to_it() -> None:
    old_form = f"-A POSTROUTING -s 10.22.0.2/16 {COMMENT} -j {CHAIN}"
    other = f"-A POSTROUTING -s 10.22.0.3/32 -j {CHAIN[:-1]}0"
    seen = {CHAIN: [], "POSTROUTING": [old_form, other]}
    assert transaction.removal_commands(_seen(seen), CHAIN) == [
        old_form.replace("-A", "-D", 1),
        f"-F {CHAIN}",
        f"-X {CHAIN}",
    ]
    assert transaction.removal_commands({}, CHAIN) == []

"""Rules sent by netlink equal those of iptables-restore for programs that read, check or delete them."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from cni.firewall import nft
from cni.firewall.intents import FORWARD, Gateway, Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import netlink as fast
from cni.firewall.iptables import rules, transaction
from cni.firewall.iptables.backend import Iptables
from cni.firewall.iptables.execute import Tool
from cni.kernel import child
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.firewall.iptables.rule import Rule
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

TARGET = ip_interface("10.22.0.2/20")
OWNER = Owner("net-1", "0c1d", "eth0")
WEB = PortMapping("tcp", 8080, 80)
GATEWAYS = (Gateway(ip_address("10.22.0.1"), TARGET.network),)
FORWARDS = {
    "one port": PortForward(OWNER, (WEB,), (TARGET,)),
    "both protocols": PortForward(OWNER, (WEB, PortMapping("udp", 53, 5353)), (TARGET,)),
    "a host address": PortForward(OWNER, (PortMapping("tcp", 81, 82, ip_address("192.0.2.1")),), (TARGET,)),
    "more ports than a rule takes": PortForward(
        OWNER, tuple(PortMapping("tcp", 9000 + each, each + 1) for each in range(20)), (TARGET,)
    ),
    "masqAll": PortForward(OWNER, (WEB,), (TARGET,), masq_all=True),
    "without snat": PortForward(OWNER, (WEB,), (TARGET,), snat=False),
    "a gateway": PortForward(OWNER, (WEB,), (TARGET,), gateways=GATEWAYS),
    "a long container ID": PortForward(Owner("n", "c" * 300, "eth0"), (WEB,), (TARGET,)),
}
TARGET6 = ip_interface("fd22::2/64")
GATEWAYS6 = (Gateway(ip_address("fd22::1"), TARGET6.network),)
FORWARDS6 = {
    "one port": PortForward(OWNER, (WEB,), (TARGET6,)),
    "both protocols and a gateway": PortForward(
        OWNER, (WEB, PortMapping("udp", 53, 5353)), (TARGET6,), gateways=GATEWAYS6
    ),
    "a host address": PortForward(
        OWNER, (PortMapping("tcp", 81, 82, ip_address("2001:db8::1")),), (TARGET6,)
    ),
    "clients": PortForward(
        OWNER, (PortMapping("tcp", 81, 82, clients=(ip_network("2001:db8::/32"),)),), (TARGET6,)
    ),
    "masqAll": PortForward(OWNER, (WEB,), (TARGET6,), masq_all=True),
}
UNKNOWN = {
    "SCTP": PortForward(OWNER, (PortMapping("sctp", 1, 2),), (TARGET,)),
    "conditions": PortForward(OWNER, (WEB,), (TARGET,), conditions_v4=("-i", "eth1")),
}


@pytest.fixture
def nft_host(host: Host) -> Host:
    """Return a host whose iptables is the nf_tables variant, with what all published ports share."""
    if os.path.basename(os.path.realpath(child.find("iptables-restore") or "")) != "xtables-nft-multi":  # noqa: PTH119
        pytest.skip("iptables is not the nf_tables variant here")
    host.call(_make_shared)
    return host


def _make_shared() -> None:
    other = PortForward(
        Owner("other", "other", "eth0"), (PortMapping("tcp", 1, 1),), (TARGET,), gateways=GATEWAYS
    )
    for intent in (other, PortForward(other.owner, other.mappings, other.targets, snat=False)):
        Iptables().apply(intent, Undo())
    Iptables().apply(Masquerade(other.owner, (TARGET,)), Undo())
    Iptables().apply(other._replace(targets=(TARGET6,), gateways=GATEWAYS6), Undo())


def _forward_rules(intent: PortForward) -> tuple[Rule, ...]:
    return rules.port_forward(intent, 4).made


def _saved(host: Host, version: int = 4) -> str:
    program = {4: "iptables-nft-save", 6: "ip6tables-nft-save"}[version]
    return re.sub(r"\[\d+:\d+\]|#.*", "", host.run([program, "-t", "nat"]))


def _read(version: int, chain: str) -> list[Rule | None]:
    return [fast.read_rule(each) for each in nft.list_rules(nft.FAMILIES[version], rules.NAT, chain)]


def _compare(host: Host, chain: str, wanted: Sequence[Rule], version: int = 4) -> None:
    """Make rules by netlink, have iptables check and delete them, make them by it, and compare."""
    assert host.call(fast.make_chain, "test", chain, wanted, None, nft.FAMILIES[version])
    by_netlink = _saved(host, version)
    own = [each for each in wanted if each.chain == chain]
    assert host.call(_read, version, chain) == own

    def apply(commands: list[str]) -> None:
        Tool(version, rules.NAT).apply("test", commands)

    host.call(apply, [each.as_command("-C") for each in wanted])
    host.call(apply, [*(each.as_command("-D") for each in wanted), f"-X {chain}"])
    assert chain not in _saved(host, version)
    host.call(apply, [f"-N {chain}", *(each.line for each in wanted)])
    assert _saved(host, version) == by_netlink
    assert host.call(_read, version, chain) == own


@pytest.mark.parametrize("intent", FORWARDS.values(), ids=FORWARDS)
def test_published_ports_read_the_same(nft_host: Host, intent: PortForward) -> None:
    _compare(nft_host, rules.forward_chain(intent.owner), _forward_rules(intent))


@pytest.mark.parametrize("intent", FORWARDS6.values(), ids=FORWARDS6)
def test_ports_published_to_ipv6_addresses_read_the_same(nft_host: Host, intent: PortForward) -> None:
    _compare(nft_host, rules.forward_chain(intent.owner), rules.port_forward(intent, 6).made, 6)


def test_masquerading_of_ipv6_addresses_reads_the_same(nft_host: Host) -> None:
    intent = Masquerade(OWNER, (TARGET6,), excepted=(ip_network("2001:db8::/33"),))
    _compare(nft_host, rules.masquerade_chain(intent.owner), rules.masquerade(intent, 6).made, 6)


@pytest.mark.parametrize("network", ["net-1", 'a"b\\c'])
def test_masquerading_reads_the_same(nft_host: Host, network: str) -> None:
    intent = Masquerade(Owner(network, "0c1d", "eth0"), (TARGET, ip_interface("10.99.0.3/32")))
    wanted = rules.masquerade(intent, 4).made
    _compare(nft_host, rules.masquerade_chain(intent.owner), wanted)


@pytest.mark.parametrize("intent", UNKNOWN.values(), ids=UNKNOWN)
def test_other_words_are_left_to_the_program(nft_host: Host, intent: PortForward) -> None:
    before = _saved(nft_host)
    chain = rules.forward_chain(intent.owner)
    assert not nft_host.call(fast.make_chain, "test", chain, _forward_rules(intent))
    assert _saved(nft_host) == before


def test_a_chain_that_is_there_is_left_alone(nft_host: Host) -> None:
    intent = FORWARDS["one port"]
    chain = rules.forward_chain(intent.owner)
    assert nft_host.call(fast.make_chain, "test", chain, _forward_rules(intent))
    before = _saved(nft_host)
    assert not nft_host.call(fast.make_chain, "test", chain, _forward_rules(intent))
    assert _saved(nft_host) == before


def _children_of_second_add(change: Callable[[], None] | None) -> list[str]:
    """Publish ports of two containers in one process. Return the programs that the second one started."""
    started: list[str] = []
    run = child.run

    def note_and_run(argv: list[str], *args: object, **options: object) -> child.Completed:
        started.append(argv[0].rpartition("/")[2])
        return run(argv, *args, **options)  # type: ignore[arg-type]

    first, second = (
        PortForward(Owner("net", name, "eth0"), (PortMapping("tcp", port, 80),), (TARGET, TARGET6))
        for name, port in (("c1", 8001), ("c2", 8002))
    )
    Iptables().apply(first, Undo())
    if change:
        change()
    child.run = note_and_run  # type: ignore[assignment]
    try:
        Iptables().apply(second, Undo())
    finally:
        child.run = run
    if found := Iptables().differences(second):
        raise AssertionError(found)
    return started


def test_rules_that_were_verified_once_need_no_program(nft_host: Host) -> None:
    assert nft_host.call(_children_of_second_add, None) == []


def test_shared_rules_that_read_otherwise_are_looked_at_by_the_program(nft_host: Host) -> None:
    """The jump to the ports is there, but for one link only: the second container would not be reached."""

    def spoil() -> None:
        narrow = f"-i lo -m addrtype --dst-type LOCAL -j {rules.DNAT}"
        usual = f"-m addrtype --dst-type LOCAL -j {rules.DNAT}"
        Tool(4, rules.NAT).apply("spoil", [f"-D PREROUTING {usual}", f"-A PREROUTING {narrow}"])

    assert "iptables-restore" in nft_host.call(_children_of_second_add, spoil)
    listed = nft_host.run(["iptables-nft", "-t", "nat", "-S", "PREROUTING"])
    assert f"-A PREROUTING -m addrtype --dst-type LOCAL -j {rules.DNAT}" in listed


def test_steps_and_netlink_make_the_same_of_an_intent() -> None:
    """`make_chain` gets the same rules as the program, in the same order."""
    intent = FORWARDS["both protocols"]
    told = [
        each for each in transaction.append_commands(rules.port_forward(intent, 4)) if each.startswith("-A")
    ]
    assert told == [each.line for each in _forward_rules(intent)]


def test_an_add_of_hundreds_of_ports_is_undone(nft_host: Host) -> None:
    ports = tuple(PortMapping("tcp", 9000 + number, 80) for number in range(300))
    many = PortForward(Owner("net1", "many", "eth0"), ports, (ip_interface("10.1.0.9/24"),))

    def add_and_remove() -> None:
        backend = Iptables()
        backend.apply(many, Undo())
        assert nft.find_chain(nft.IPV4, "nat", rules.forward_chain(many.owner)) is not None
        backend.remove(many.owner, FORWARD)

    before = _saved(nft_host)
    nft_host.call(add_and_remove)
    assert _saved(nft_host) == before

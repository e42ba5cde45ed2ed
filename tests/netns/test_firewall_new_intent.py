"""An intent that the library does not know: this file alone has the value and its renderings."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.firewall import installed, nft, owners, select
from cni.firewall.intents import KINDS, Kind, Masquerade, Owner
from cni.firewall.iptables.rule import Own, Rendering, Rule, Wanted
from cni.firewall.iptables.rules import owner_chain, owner_comment
from cni.firewall.nftables import chains
from cni.firewall.nftables import plan as nftables
from cni.request import Attachment
from cni.undo import Undo
from tests.netns.firewall_hosts import VARIANTS, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.result import IpInterface
    from cni.testing import Host

FILTER, HOOK, TABLE = "filter", "FORWARD", "admission"
ADDRESSES = (ip_interface("10.1.0.2/24"), ip_interface("fd00:1::2/64"))
OWNER = Owner("net1", "cid1", "eth0")


class Admit(NamedTuple):
    """Accept what is forwarded to a container's addresses, whatever else the host's filter drops."""

    owner: Owner
    addresses: tuple[IpInterface, ...]

    @property
    def kind(self) -> Kind:
        return ADMIT

    @property
    def versions(self) -> Sequence[int]:
        return sorted({each.version for each in self.addresses})


def _chain(owner: Owner) -> str:
    return owner_chain("CNI-AD-", owner)


def _wanted(intent: Admit, version: int) -> Wanted:
    chain, comment = _chain(intent.owner), owner_comment(intent.owner)
    found = [each.ip for each in intent.addresses if each.version == version]
    rules = [Rule(FILTER, chain, (("-d", f"{ip}/{ip.max_prefixlen}"), comment), ("ACCEPT",)) for ip in found]
    return Wanted(chain, tuple(rules), (Rule(FILTER, HOOK, (comment,), (chain,)),))


def _own(owner: Owner) -> list[chains.OwnChain]:
    return [chains.tagged(family, TABLE, "admitted", owner) for family in nft.FAMILIES.values()]


def _plan(intent: Admit) -> nftables.Plan:
    script, rules = "", []
    for own, address in zip(_own(intent.owner), intent.addresses, strict=True):
        family = nft.FAMILY_NAMES[own.family]
        where = f"{family} {own.table}"
        script += f"""\
add table {where}
add chain {where} {own.parent} {{ type filter hook forward priority 0; policy accept; }}
add chain {where} {own.name}
add rule {where} {own.name} {family} daddr {address.ip} accept comment "{address.ip}"
add rule {where} {own.parent} jump {own.name} comment "{owners.comment(intent.owner)}"
"""
        rules.append((own, str(address.ip)))
    return nftables.Plan(script=script, rules=rules)


ADMIT = Kind(
    "admit",
    "admission",
    "admit",
    lambda: Rendering(FILTER, "admit", (HOOK,), _wanted, lambda owner: (Own(_chain(owner), HOOK),)),
    lambda: nftables.Rendering(_plan, _own),
)
# What of the ruleset shows the intent, by backend and variant of iptables.
SHOWN = {
    "iptables-nft": "iptables-nft-save; ip6tables-nft-save",
    "iptables-legacy": "iptables-legacy-save; ip6tables-legacy-save",
    "nftables": "nft list ruleset",
}
setups = pytest.mark.parametrize("setup", SHOWN)


def admit(number: int = 1) -> Admit:
    addresses = tuple(ip_interface(f"{each.ip + number - 1}/{each.network.prefixlen}") for each in ADDRESSES)
    return Admit(owner(number), addresses)


def owner(number: int) -> Owner:
    return OWNER._replace(container_id=f"cid{number}")


class Machine:
    """A host whose PATH has one variant of iptables, and the backend under test."""

    def __init__(self, host: Host, setup: str) -> None:
        self.host = host
        self.setup = setup
        self.backend, _, self.variant = setup.partition("-")
        links = [f"ln -s /usr/sbin/{program} /run/bin/{name}" for name, program in self._programs().items()]
        host.run(["sh", "-c", "; ".join(["mkdir /run/bin", *links])])

    def _programs(self) -> dict[str, str]:
        return {"nft": "nft", **plain(self.variant if self.variant in VARIANTS else "nft")}

    def call(self, function: Callable[..., object], *args: object) -> object:
        def run() -> object:
            os.environ["PATH"] = "/run/bin"
            return function(*args)

        return self.host.call(run)

    def add(self, number: int = 1) -> None:
        self.call(_add, self.backend, admit(number))

    def differences(self, number: int = 1) -> list[str]:
        found = self.call(select.choose(self.backend, "test").differences, admit(number))
        assert isinstance(found, list)
        return found

    def shown(self) -> str:
        return self.host.run(["sh", "-c", SHOWN[self.setup]])


def _add(backend: str, intent: Admit | Masquerade) -> None:
    with Undo() as undo:
        select.choose_for_add(backend, "test").apply(intent, undo)


@pytest.fixture
def machine(host: Host, setup: str) -> Machine:
    return Machine(host, setup)


@setups
def test_it_is_applied_compared_and_removed(machine: Machine) -> None:
    machine.add(9)
    before = machine.host.snapshot()
    machine.add()
    shown = machine.shown()
    for address in ADDRESSES:
        assert str(address.ip) in shown
    assert machine.differences() == []
    with_rules = machine.host.snapshot()
    machine.add()
    assert with_rules.differences(machine.host.snapshot()) == []
    for _ in range(2):
        machine.call(select.remove, OWNER, ADMIT)
        assert before.differences(machine.host.snapshot()) == []
    assert machine.differences() != []
    assert machine.differences(9) == []


@setups
def test_a_lost_rule_is_a_difference_and_is_made_again(machine: Machine) -> None:
    machine.add()
    whole = machine.host.snapshot()
    chain = _own(OWNER)[0]
    flush = {
        "nftables": f"nft flush chain ip {chain.table} {chain.name}",
        "iptables": f"{machine.setup} -t {FILTER} -F {_chain(OWNER)}",
    }
    machine.host.run(["sh", "-c", flush[machine.backend]])
    [difference] = machine.differences()
    assert str(ADDRESSES[0].ip) in difference
    machine.add()
    assert whole.differences(machine.host.snapshot()) == []


@setups
def test_a_failing_add_leaves_the_rules_as_they_were(machine: Machine) -> None:
    before = machine.host.snapshot()

    def fail_late() -> None:
        with suppress(KeyError), Undo() as undo:
            select.choose_for_add(machine.backend, "test").apply(admit(), undo)
            raise KeyError

    machine.call(fail_late)
    # iptables-nft makes a table when it is first used, and keeps it.
    found = before.differences(machine.host.snapshot())
    assert [each for each in found if "CNI-" in each or TABLE in each] == []


@setups
def test_gc_finds_it_by_its_owner_and_leaves_other_kinds_alone(machine: Machine) -> None:
    machine.call(_add, machine.backend, Masquerade(owner(2), ADDRESSES))
    machine.add(1)
    before = machine.host.snapshot()
    machine.add(2)
    valid = {Attachment("cid1", "eth0")}
    # The plugins that masquerade do not know this kind.
    assert machine.call(select.stale, "net1", {*valid, Attachment("cid2", "eth0")}, KINDS) == []
    found = machine.call(select.stale, "net1", valid, (ADMIT,))
    named = [each.name for each in found if "masquerade" not in each.kind]  # type: ignore[attr-defined]
    assert any(_chain(owner(2)) in name or _own(owner(2))[0].name in name for name in named)
    machine.call(select.collect, "net1", {*valid, Attachment("cid2", "eth0")}, (ADMIT,))
    assert machine.differences(2) == []
    if machine.backend == "iptables":
        machine.call(select.collect, "net1", valid, (ADMIT,))
        # The masquerading of cid2 remains, as that kind was not asked about.
        assert before.differences(machine.host.snapshot()) == []
    else:
        machine.call(select.collect, "net1", valid, (ADMIT,))
        assert machine.differences(2) != []
    assert machine.differences(1) == []


@setups
def test_names_show_whether_rules_are_installed(machine: Machine) -> None:
    machine.add(1)
    owned = [owner(1), owner(2)]
    assert machine.call(installed.without, owned, ADMIT, (4, 6)) == [owner(2)]


def test_an_intent_says_which_backend_does_not_have_it(host: Host) -> None:
    only = Kind("only", "test rules", "test", nftables=ADMIT.nftables)

    class Only(Admit):
        @property
        def kind(self) -> Kind:
            return only

    with pytest.raises(Exception, match="the backend iptables has no test rules"):
        _add("iptables", Only(OWNER, ADDRESSES))
    host.call(_add, "nftables", Only(OWNER, ADDRESSES))
    host.call(select.remove, OWNER, only)
    assert "10.1.0.2" not in host.run(["nft", "list", "ruleset"])

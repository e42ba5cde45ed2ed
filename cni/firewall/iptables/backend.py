"""The backend iptables: it applies, compares and removes intents of any kind, whatever their rules are.

An ADD is one transaction for each IP version. Functions import what only GC needs: a cold start pays for each
module.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall import orphans
from cni.firewall.intents import KINDS, Backend, Owner, checked_part, doing
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.execute import XTABLES_WAIT_S, RefusedError, Tool
from cni.firewall.iptables.transaction import Transaction, remove_chain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cni.firewall.intents import Intent, Kind
    from cni.firewall.iptables.rule import Rendering, Rule
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.undo import Undo

_VERSIONS = (4, 6)


class Iptables(Backend):
    """The `Backend` for iptables and ip6tables. It touches only the IP versions that an intent has."""

    name = "iptables"
    wait_s = XTABLES_WAIT_S

    def is_installed(self) -> bool:
        """Return whether a program for either IP version is installed."""
        return any(self._tool(version).find() for version in _VERSIONS)

    def unusable_because(self) -> str:
        """Return why neither IP version works, "" if one does."""
        reasons = []
        for version in _VERSIONS:
            try:
                self._tool(version).list_while_there(["OUTPUT"])
            except CniError as error:
                reasons.append(error.msg)
            else:
                return ""
        return "; ".join(reasons)

    def apply(self, intent: Intent, undo: Undo) -> None:
        """Make the intent's rules: all of them, or none."""
        rendering, versions, action = _rendering(intent), intent.versions, doing(intent)
        with orphans.bound(intent.owner):
            for version in versions:
                tool = Tool(version, rendering.table, self.wait_s)
                transaction = Transaction(tool, rendering.wanted(intent, version), action)
                added = f"{intent.kind.noun} of {intent.owner.container_id} in iptables for IPv{version}"
                undo.add(f"remove {added}", transaction.undo)
                transaction.run()

    def differences(self, intent: Intent) -> list[str]:
        """Compare with the existing rules. The order of other containers' rules does not matter."""
        rendering = _rendering(intent)
        checked = checked_part(intent)
        found = []
        for version in checked.versions:
            wanted = rendering.wanted(checked, version)
            tool = self._tool(version, rendering.table)
            missing = _differences(tool, [*wanted.made, *wanted.needed])
            found += [f"ipv{version} {rendering.label}: {each}" for each in missing]
        return found

    def remove(self, owner: Owner, kind: Kind) -> None:
        """Remove the rules of a kind that the container has on this network."""
        if kind.iptables is None:
            return
        rendering = kind.iptables()
        owned = rendering.own(owner)
        errors = ErrorList()
        for version in _VERSIONS:
            tool = self._tool(version, rendering.table)
            for own in owned:
                errors.attempt(_remove, tool, own.chain, [own.parent])
        errors.raise_any()

    def installed(self, owners: Sequence[Owner], kind: Kind, versions: Collection[int]) -> list[Owner]:
        """Return those who have rules of a kind, by names alone: in each of `versions`, or in any."""
        if kind.iptables is None:
            return []
        rendering = kind.iptables()
        tools = [self._tool(version, rendering.table) for version in versions or _VERSIONS]
        led_to = [_led_to(tool, rendering.path) for tool in tools]
        enough = all if versions else any
        return [
            owner
            for owner in owners
            if enough({*rendering.path[1:], rendering.own(owner)[0].chain} <= each for each in led_to)
        ]

    def rebuild(self, intent: Intent) -> None:
        """Do nothing: `apply` makes missing shared chains."""

    def stale(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[Stale]:
        """Return what `collect` removes."""
        found: list[Stale] = []
        errors = ErrorList()
        for table, version in _each_table(kinds):
            tool = self._tool(version, table)
            errors.attempt(lambda tool=tool: found.extend(_find_stale(tool, network, valid, kinds)))
        errors.raise_any()
        return found

    def collect(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[str]:
        """Remove the rules of the network's containers that are not valid any more."""
        from cni.firewall.iptables import stale

        removed: set[str] = set()
        errors = ErrorList()

        def collect_one(tool: Tool) -> None:
            with _where_table_exists():
                removed.update(stale.collect(tool, network, *_chains(network, valid, kinds)))
                if tool.table == rules.NAT:
                    stale.forget_gateways(tool)

        for table, version in _each_table(kinds):
            errors.attempt(collect_one, self._tool(version, table))
        errors.raise_any()
        return sorted(removed)

    def _tool(self, version: int, table: str = rules.NAT) -> Tool:
        return Tool(version, table, self.wait_s)


def _rendering(intent: Intent) -> Rendering:
    kind = intent.kind
    if kind.iptables is None:
        raise CniError(Code.NOT_AVAILABLE, f"the backend iptables has no {kind.noun}", "use nftables")
    return kind.iptables()


def _each_table(kinds: Sequence[Kind]) -> list[tuple[str, int]]:
    tables = dict.fromkeys(kind.iptables().table for kind in kinds if kind.iptables)
    return [(table, version) for table in tables for version in _VERSIONS]


def _chains(
    network: str, valid: Collection[Attachment], kinds: Sequence[Kind]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the chains that valid attachments may have, and the prefixes of all chains of these kinds."""
    renderings = [kind.iptables() for kind in kinds if kind.iptables]
    owners = [Owner(network, each.container_id, each.ifname) for each in valid]
    kept = frozenset(own.chain for each in renderings for owner in owners for own in each.own(owner))
    sample = [own.chain for each in renderings for own in each.own(Owner("", "", ""))]
    return kept, frozenset(map(rules.chain_prefix, sample))


def _find_stale(
    tool: Tool, network: str, valid: Collection[Attachment], kinds: Sequence[Kind]
) -> list[Stale]:
    from cni.firewall.iptables import stale
    from cni.operations.garbage import Stale

    found: list[stale.StaleChain] = []
    former: list[Rule] = []
    with _where_table_exists():
        found = stale.find_stale(tool, network, *_chains(network, valid, kinds))
        if tool.table == rules.NAT:
            former = [rule for _, listed in stale.list_former_gateways(tool) for rule in listed]
    kind = f"{tool.name} chain"
    return [
        *(Stale(kind, each.chain, network, each.container_id, mappings=each.mappings) for each in found),
        *(
            Stale(kind, rule.leads_to, reason=f"the host has no {rules.find_gateway(rule)}")
            for rule in former
        ),
    ]


def _remove(tool: Tool, chain: str, parents: Sequence[str]) -> None:
    with _where_table_exists():
        remove_chain(tool, chain, parents)


@contextmanager
def _where_table_exists() -> Iterator[None]:
    """Ignore that the kernel does not have the table for the IP version: then no rule exists."""
    try:
        yield
    except RefusedError as error:
        if not error.is_without_table:
            raise


def _differences(tool: Tool, wanted: Sequence[Rule]) -> list[str]:
    chains = list(dict.fromkeys(rule.chain for rule in wanted))
    seen = tool.list_chains(chains)
    return [
        *(f"chain {each} not found in iptables table {tool.table}" for each in chains if each not in seen),
        *(
            f"rule {rule.line} not found in chain {rule.chain} in iptables table {tool.table}"
            for rule in wanted
            if rule.chain in seen and rule not in seen[rule.chain] and not tool.has(rule)
        ),
    ]


def _led_to(tool: Tool, names: Sequence[str]) -> set[str]:
    """Return the chains to which rules of these chains lead."""
    try:
        listings = [having.list_while_there(names) for having in variants.list_with_table(tool)]
    except CniError:
        return set()
    return {rule.leads_to for listing in listings for listed in listing.values() for rule in listed}

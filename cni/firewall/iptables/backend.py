"""The backend iptables: it applies, compares and removes intents of any kind, whatever their rules are.

An ADD is one transaction for each IP version. Functions import what only GC needs: a cold start pays for each
module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall import orphans
from cni.firewall.intents import KINDS, Backend, checked_part, doing
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.execute import XTABLES_WAIT_S, RefusedError, Tool
from cni.firewall.iptables.transaction import Transaction, remove_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cni.firewall.intents import Intent, Kind, Owner
    from cni.firewall.iptables.rule import Rendering, Rule
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpAddress
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

    def may_have(self, intent: Intent) -> bool:
        """Return whether any variant has a chain of the owner, or does not answer."""
        if intent.kind.iptables is None:
            return False
        rendering = intent.kind.iptables()
        try:
            return any(
                variants.may_have_chain(version, rendering.table, own.chain)
                for version in intent.versions
                for own in rendering.own(intent.owner)
            )
        except (CniError, OSError):
            return True

    def remove(self, owner: Owner, kind: Kind, addresses: Sequence[IpAddress] = ()) -> None:
        """Remove the rules of a kind that the container has on this network."""
        if kind.iptables is None:
            return
        rendering = kind.iptables()
        owned = rendering.own(owner)
        errors = ErrorList()
        for version in _VERSIONS:
            tool = self._tool(version, rendering.table)
            for own in owned:
                errors.attempt(_where_table_exists, remove_chain, tool, own.chain, [own.parent], addresses)
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
        from cni.firewall.iptables import stale

        found: list[Stale] = []
        self._in_each_table(lambda tool: found.extend(stale.find(tool, network, valid, kinds)), kinds)
        return found

    def collect(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[str]:
        """Remove the rules of the network's containers that are not valid any more."""
        from cni.firewall.iptables import stale

        removed: set[str] = set()
        self._in_each_table(lambda tool: removed.update(stale.collect(tool, network, valid, kinds)), kinds)
        return sorted(removed)

    def _in_each_table(self, step: Callable[[Tool], None], kinds: Sequence[Kind]) -> None:
        """Run a step for each table of these kinds that the kernel has, and each IP version."""
        errors = ErrorList()
        for table in dict.fromkeys(kind.iptables().table for kind in kinds if kind.iptables):
            for version in _VERSIONS:
                errors.attempt(_where_table_exists, step, self._tool(version, table))
        errors.raise_any()

    def _tool(self, version: int, table: str = rules.NAT) -> Tool:
        return Tool(version, table, self.wait_s)


def _rendering(intent: Intent) -> Rendering:
    kind = intent.kind
    if kind.iptables is None:
        raise CniError(Code.NOT_AVAILABLE, f"the backend iptables has no {kind.noun}", "use nftables")
    return kind.iptables()


def _where_table_exists(step: Callable[..., None], *args: object) -> None:
    """Run a step. Ignore that the kernel does not have the table for the IP version: then no rule exists."""
    try:
        step(*args)
    except RefusedError as error:
        if not error.is_without_table:
            raise


def _differences(tool: Tool, wanted: Sequence[Rule]) -> list[str]:
    # ADD and DEL do not need it.
    from cni.firewall.iptables.present import list_present, may_be

    seen = list_present(tool, wanted)
    return [
        *(
            f"chain {each} not found in iptables table {tool.table}"
            for each in dict.fromkeys(rule.chain for rule in wanted)
            if each not in seen
        ),
        *(
            f"rule {rule.line} not found in chain {rule.chain} in iptables table {tool.table}"
            for rule in wanted
            if rule.chain in seen
            and rule not in seen[rule.chain]
            and not (may_be(rule, seen[rule.chain]) and tool.has(rule))
        ),
    ]


def _led_to(tool: Tool, names: Sequence[str]) -> set[str]:
    """Return the chains to which rules of these chains lead."""
    try:
        listings = [having.list_while_there(names) for having in variants.list_with_table(tool)]
    except CniError:
        return set()
    return {rule.leads_to for listing in listings for listed in listing.values() for rule in listed}

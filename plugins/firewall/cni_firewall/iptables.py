"""The backend iptables: rules in chains that all containers share, as the Go plugin writes them.

The nf_tables variant is read and changed by netlink, without a child process, once the shared chains exist.
The program does the rest, with the lock of all transactions of this suite held.
"""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall import nft, orphans
from cni.firewall.iptables import netlink, variants
from cni.firewall.iptables.execute import Tool
from cni.firewall.iptables.transaction import LOCK, ensure_shared, missing_chains, remove_unused, retried
from cni.state import files
from cni.state.lock import locked
from cni_firewall.iptables_rules import (
    ADMITTED,
    FILTER,
    FIRST_STAGE,
    HOOK,
    SECOND_STAGE,
    admission,
    admission_chains,
    as_current,
    bridge_of,
    isolation,
    isolation_ends,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from cni.firewall.iptables.rule import Rule, Shared
    from cni.firewall.iptables.transaction import Seen
    from cni.result import IpAddress
    from cni.undo import Undo
    from cni_firewall.plan import Plan

_VERSIONS = (4, 6)
_TRIES = 20
_STAGES = (FIRST_STAGE, SECOND_STAGE)


def admit(plan: Plan, admin_chain: str, undo: Undo) -> None:
    """Accept what comes from the plan's addresses, and replies to them. Raise CniError 101 or 11."""
    doing = f"admit container {plan.owner.container_id} on network {plan.owner.network}"
    with orphans.bound(plan.owner):
        for version in plan.versions:
            _Admission(Tool(version, FILTER), _rules(plan, version), admin_chain, doing).run(undo)


def _rules(plan: Plan, version: int) -> list[Rule]:
    return [rule for each in plan.addresses if each.version == version for rule in admission(each)]


class _Admission:
    """The rules of one container in one IP version."""

    def __init__(self, tool: Tool, wanted: list[Rule], admin_chain: str, doing: str) -> None:
        self.tool = tool
        self.wanted = wanted
        self.shared = admission_chains(admin_chain)
        self.doing = doing
        self.added: list[Rule] = []
        self.made_shared: list[Shared] = []

    def run(self, undo: Undo) -> None:
        undo.add(f"withdraw rules of {self.tool.name}", self._revert)
        if not (self.tool.is_nf_tables() and self._append()):
            files.ensure_directory(LOCK.parent)
            with locked(LOCK, self.tool.wait_s):
                retried(self._complete)

    def _append(self) -> bool:
        """Append missing rules by netlink. Return False if shared rules are missing, or it is refused."""
        family = nft.FAMILIES[self.tool.version]
        chains = [each.chain for each in self.shared]
        jumps = [jump.rule for each in self.shared for jump in each.jumps]
        for _ in range(_TRIES):
            number, present = nft.find_chains_now([(family, FILTER, each) for each in (HOOK, *chains)])
            if None in present:
                return False
            led = nft.list_rules_with(family, FILTER, HOOK, [f"{ADMITTED}\0".encode()])
            about = _packed(self.wanted) | {f"{chains[1]}\0".encode()}
            rules = [*led, *nft.list_rules_with(family, FILTER, ADMITTED, about)]
            seen = [rule for each in rules if (rule := netlink.read_rule(each))]
            if any(seen.count(each) != 1 for each in jumps):
                return False
            self.added = [each for each in self.wanted if each not in seen]
            if not self.added or netlink.append(self.doing, self.tool.version, self.added, number):
                return True
            if nft.generation() == number:
                return False
        return False

    def _complete(self) -> None:
        """Make all that is missing, by the program."""
        chains = (HOOK, *(each.chain for each in self.shared))
        seen = self.tool.list_chains([HOOK, *variants.list_existing(self.tool, chains[1:])])
        self.added = [each for each in self.wanted if each not in seen.get(ADMITTED, ())]
        self.made_shared = list(missing_chains(seen, self.shared))
        commands = ensure_shared(seen, self.shared, self.tool.has)
        self.tool.apply(self.doing, [*commands, *(each.line for each in self.added)])

    def _revert(self) -> None:
        _withdraw(self.tool, self.added)
        if self.made_shared:
            remove_unused(self.tool, self.made_shared)


def _packed(rules: Iterable[Rule]) -> set[bytes]:
    return {ip_network(rule.matches[0][1]).network_address.packed for rule in rules}


def differences(plan: Plan, admin_chain: str) -> list[str]:
    """Return what is missing of the rules that `admit` makes."""
    found = []
    for version in plan.versions:
        tool = Tool(version, FILTER)
        jumps = [jump.rule for each in admission_chains(admin_chain) for jump in each.jumps]
        found += _missing(tool, [*jumps, *_rules(plan, version)])
    return found


def _missing(tool: Tool, wanted: Sequence[Rule]) -> list[str]:
    # ADD and DEL do not need it.
    from cni.firewall.iptables.present import list_present

    current = {
        name: [as_current(rule) for rule in rules] for name, rules in list_present(tool, wanted).items()
    }
    return [
        f'expected ipv{tool.version} rule "{rule.spec}" not found in chain {rule.chain} of table {FILTER}'
        for rule in wanted
        if rule not in current.get(rule.chain, ())
    ]


def withdraw(addresses: Collection[IpAddress]) -> None:
    """Remove the rules that admit addresses, made by either suite, of every variant of iptables."""
    errors = ErrorList()
    for version in _VERSIONS:
        rules = [rule for each in addresses if each.version == version for rule in admission(each)]
        errors.attempt(_withdraw, Tool(version, FILTER), rules)
    errors.raise_any()


def _withdraw(tool: Tool, rules: Sequence[Rule]) -> None:
    if not rules:
        return
    is_in_nftables, others = variants.find_chain(tool, ADMITTED)
    if is_in_nftables:
        _withdraw_by_netlink(tool, rules)
    for having in others:
        retried(partial(_remove_listed, having, (ADMITTED,), rules.__contains__))


def _withdraw_by_netlink(tool: Tool, rules: Sequence[Rule]) -> None:
    family = nft.FAMILIES[tool.version]
    for _ in range(_TRIES):
        listed = nft.list_rules_with(family, FILTER, ADMITTED, _packed(rules))
        if nft.commit_deletions(
            [nft.delete_rule(each) for each in listed if netlink.read_rule(each) in rules]
        ):
            return
    raise CniError(
        Code.TRY_AGAIN, f"could not remove rules of chain {ADMITTED}: another program kept changing it"
    )


def _remove_listed(tool: Tool, chains: Sequence[str], is_wanted: Callable[[Rule], bool]) -> None:
    seen = tool.list_chains(variants.list_existing(tool, chains))
    stale = [rule for rules in seen.values() for rule in rules if is_wanted(rule)]
    tool.apply("remove rules", [rule.as_command("-D") for rule in stale])


def isolate(plan: Plan, policy: str, versions: Collection[int]) -> None:
    """Isolate the plan's link as the Go plugin does, in some IP versions."""
    doing = f"isolate {plan.link} of network {plan.owner.network}"
    with orphans.bound(plan.owner):
        files.ensure_directory(LOCK.parent)
        for version in versions:
            tool = Tool(version, FILTER)
            with locked(LOCK, tool.wait_s):
                retried(partial(_isolate, tool, isolation(plan.link, policy), doing))


def _isolate(tool: Tool, rules: Sequence[Rule], doing: str) -> None:
    seen = tool.list_chains([HOOK, *variants.list_existing(tool, _STAGES)])
    tool.apply(doing, _isolation_commands(seen, rules))


def _isolation_commands(seen: Seen, rules: Sequence[Rule]) -> list[str]:
    """Make each rule exist once, whichever release wrote it: the ends first, then the bridge's before all."""
    commands = [f"-N {each}" for each in _STAGES if each not in seen]
    for at, rule in enumerate([*isolation_ends(), *rules]):
        same = [each for each in seen.get(rule.chain, ()) if as_current(each) == rule]
        commands += [each.as_command("-D") for each in same[1:]]
        if not same:
            is_end = at < len(isolation_ends()) and rule.chain != HOOK
            commands.append(rule.as_command("-A" if is_end else "-I"))
    return commands


def isolation_differences(plan: Plan, policy: str) -> list[str]:
    """Return what is missing of the rules that `isolate` makes."""
    wanted = [*isolation_ends(), *isolation(plan.link, policy)]
    return [each for version in plan.versions for each in _missing(Tool(version, FILTER), wanted)]


def release(link: str) -> None:
    """Remove the rules that isolate a bridge, made by either suite. The shared chains remain, as Go's do."""
    errors = ErrorList()
    for version in _VERSIONS:
        tool = Tool(version, FILTER)
        errors.attempt(_release, tool, link)
    errors.raise_any()


def _release(tool: Tool, link: str) -> None:
    for having in variants.list_having(tool, FIRST_STAGE):
        retried(partial(_remove_listed, having, _STAGES, lambda rule: bridge_of(rule) == link))


def remove_unused_isolation(version: int) -> None:
    """Remove the chains of isolation, unless they isolate a bridge."""
    tool = Tool(version, FILTER)
    with locked(LOCK, tool.wait_s):
        for having in variants.list_having(tool, FIRST_STAGE):
            retried(partial(_remove_unused_isolation, having))


def _remove_unused_isolation(tool: Tool) -> None:
    existing = variants.list_existing(tool, _STAGES)
    seen = tool.list_chains([HOOK, *existing])
    own = [rule for chain in existing for rule in seen.get(chain, ())]
    if any(as_current(rule) not in isolation_ends() for rule in own):
        return
    jumps = [rule for rule in seen[HOOK] if rule.leads_to in existing]
    commands = [rule.as_command("-D") for rule in (*jumps, *own)]
    tool.apply("remove chains of isolation", [*commands, *(f"-X {each}" for each in existing)])


def has_isolation(version: int) -> bool:
    """Return whether the chains of isolation exist, or may exist."""
    try:
        return variants.may_have_chain(version, FILTER, FIRST_STAGE)
    except (CniError, OSError):
        return False


def list_isolated() -> list[str]:
    """Return the bridges that rules of any variant isolate."""
    return sorted(set(_list_isolated()))


def _list_isolated() -> Iterator[str]:
    for version in _VERSIONS:
        for having in variants.list_having(Tool(version, FILTER), FIRST_STAGE):
            seen = having.list_chains(variants.list_existing(having, _STAGES))
            yield from (each for rules in seen.values() for rule in rules if (each := bridge_of(rule)))

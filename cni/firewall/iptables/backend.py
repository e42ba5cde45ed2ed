"""The iptables backend: intents made so, compared and taken away, in the Go plugins' layout.

An ADD is one transaction for each family. Shared chains are read and made under a lock of ours; the Go
plugins do not know that lock, so a transaction that no longer fits what was read is planned anew.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, ErrorList
from cni.firewall import nft, orphans
from cni.firewall.intents import Owner
from cni.firewall.iptables import netlink as fast
from cni.firewall.iptables import remove as removal
from cni.firewall.iptables import rules, steps, variants
from cni.firewall.iptables.execute import XTABLES_WAIT_S, RefusedError, Tool
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from cni.firewall.intents import Masquerade, PortForward
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpInterface
    from cni.undo import Undo

_VERSIONS = (4, 6)
# How often others may change the ruleset in between.
_NETLINK_TRIES = 5
# An ADD that names a gateway where as many are named looks for those that the host has lost.
_MOST_GATEWAYS = 64
LOCK = Path("/run/pycni/iptables.lock")


class Iptables:
    """`Backend` on iptables and ip6tables; only the families that an intent has are touched."""

    name = "iptables"

    def __init__(self) -> None:
        self.wait_s = XTABLES_WAIT_S

    def is_installed(self) -> bool:
        """Tell whether there is a program for either family."""
        return any(self._tool(version).find() for version in _VERSIONS)

    def unusable_because(self) -> str:
        """Tell why neither family works, "" when one does."""
        reasons = []
        for version in _VERSIONS:
            try:
                self._tool(version).list_while_there(["OUTPUT"])
            except CniError as error:
                reasons.append(error.msg)
            else:
                return ""
        return "; ".join(reasons)

    def add_forward(self, intent: PortForward, undo: Undo) -> None:
        """Publish ports, all or nothing."""
        with orphans.bound(intent.owner):
            for version in _versions(intent.targets):
                tool = self._tool(version)
                taken_back = _TakenBack()
                what = f"remove published ports of {intent.owner.container_id} ({tool.name})"
                undo.add(what, self._under_lock, taken_back.run)
                if not _publish_as_usual(tool, intent, taken_back):
                    self._under_lock(removal.retried, _publish, tool, intent, taken_back)

    def differences_forward(self, intent: PortForward) -> list[str]:
        """Compare with what is in place; the order of rules of other containers does not matter."""
        found = []
        for version in _versions(intent.targets):
            wanted = [*rules.forward_rules(intent, version), *rules.forward_entries(intent, version)]
            for shared in rules.shared_chains(intent, version):
                wanted += [*shared.rules, *(jump.rule for jump in shared.jumps)]
            found += [f"ipv{version} dnat: {each}" for each in _differences(self._tool(version), wanted)]
        return found

    def remove_forward(self, owner: Owner) -> None:
        """Take away whatever was published for the container on this network."""
        self._remove([rules.forward_chain(owner), rules.old_snat_chain(owner)])

    def add_masquerade(self, intent: Masquerade, undo: Undo) -> None:
        """Masquerade, all or nothing."""
        with orphans.bound(intent.owner):
            for version in _versions(intent.addresses):
                tool = self._tool(version)
                self._ensure_gateways(tool, intent, undo)
                taken_back = _TakenBack()
                what = f"remove masquerading of {intent.owner.container_id} ({tool.name})"
                undo.add(what, taken_back.run)
                if not _make_masquerade(tool, intent, taken_back):
                    self._under_lock(removal.retried, _complete_masquerade, tool, intent, taken_back)

    def differences_masquerade(self, intent: Masquerade) -> list[str]:
        """Compare with what is in place."""
        found = []
        for version in _versions(intent.addresses):
            wanted = [*rules.masquerade_rules(intent, version), *rules.masquerade_jumps(intent, version)]
            found += [
                f"ipv{version} masquerade: {each}" for each in _differences(self._tool(version), wanted)
            ]
        return found

    def remove_masquerade(self, owner: Owner) -> None:
        """Take away the masquerading of the container on this network."""
        self._remove([rules.masquerade_chain(owner)])

    def mend(self, targets: Sequence[IpInterface]) -> None:
        """Do nothing: adding makes what is missing of the shared chains."""

    def stale(self, network: str, valid: Collection[Attachment]) -> list[Stale]:
        """Tell what `collect` would remove."""
        from cni.firewall.iptables.stale import find

        kept = _kept_chains(network, valid)
        return find(map(self._tool, _VERSIONS), network, lambda chain: chain in kept)

    def collect(self, network: str, valid: Collection[Attachment]) -> list[str]:
        """Remove what was made for containers of the network that are no longer valid."""
        kept = _kept_chains(network, valid)
        removed: set[str] = set()
        errors = ErrorList()

        def collect_one(tool: Tool) -> None:
            with _where_there_is_nat():
                removed.update(removal.collect(tool, network, lambda chain: chain in kept))
                removal.forget_gateways(tool)

        for tool in map(self._tool, _VERSIONS):
            errors.attempt(collect_one, tool)
        errors.raise_any()
        return sorted(removed)

    def _ensure_gateways(self, tool: Tool, intent: Masquerade, undo: Undo) -> None:
        """Keep the ports of others from the gateways of a masqueraded network."""
        shared = rules.gateway_chains(intent.gateways, tool.version)
        if variants.has_once(tool.version, shared):
            return
        taken_back = _TakenBack()
        what = f"forget the gateways of network {intent.owner.network} ({tool.name})"
        undo.add(what, self._under_lock, taken_back.run)
        self._under_lock(removal.retried, _make_gateways, tool, shared, taken_back)

    def _remove(self, chains: Sequence[str]) -> None:
        errors = ErrorList()
        for tool in map(self._tool, _VERSIONS):
            for chain in chains:
                errors.attempt(_remove_from, tool, chain)
        errors.raise_any()

    def _tool(self, version: int) -> Tool:
        return Tool(version, self.wait_s)

    def _under_lock(self, step: Callable[..., None], *args: object) -> None:
        with _locked(self.wait_s):
            step(*args)


def _kept_chains(network: str, valid: Collection[Attachment]) -> frozenset[str]:
    return removal.owner_chains([Owner(network, each.container_id, each.ifname) for each in valid])


class _TakenBack:
    """What an undo will do: known only when the rules have been read, and again with each new try."""

    def __init__(self) -> None:
        self.steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def run(self) -> None:
        errors = ErrorList()
        for step, args in self.steps:
            errors.attempt(step, *args)
        errors.raise_any()


@contextmanager
def _locked(timeout_s: float) -> Iterator[None]:
    files.ensure_directory(LOCK.parent)
    with locked(LOCK, timeout_s):
        yield


def _versions(interfaces: Sequence[IpInterface]) -> list[int]:
    present = {each.version for each in interfaces}
    return [version for version in _VERSIONS if version in present]


def _publish(tool: Tool, intent: PortForward, taken_back: _TakenBack) -> None:
    """Publish ports where anything may be there already: the container's chain, part of what is shared."""
    shared = rules.shared_chains(intent, tool.version)
    chain = rules.forward_chain(intent.owner)
    seen = _read_for_forward(tool, shared, chain)
    made = steps.missing_chains(seen, shared)

    def has(rule: rules.Rule) -> bool:
        return tool.has(rule.as_command("-C"))

    commands = steps.ensure_shared(seen, shared, has)
    commands += steps.ensure_forward(seen, intent, tool.version, has)
    commands += _former_gateways(tool, seen, shared)
    if chain in seen:
        back = steps.restore_forward(seen, intent, tool.version, has)
        taken_back.steps = [(tool.apply, (f"restore chain {chain}", back))]
    else:
        taken_back.steps = [(removal.remove_chain, (tool, chain)), (removal.remove_unused, (tool, made))]
    _apply(tool, _publishing(intent), commands, taken_back)


def _make_gateways(tool: Tool, shared: Sequence[rules.Shared], taken_back: _TakenBack) -> None:
    if variants.has_once(tool.version, shared):
        # Another ADD of the network was faster.
        return
    seen = tool.list_chains([each.chain for each in shared])
    commands = steps.ensure_shared(seen, shared, lambda rule: tool.has(rule.as_command("-C")))
    taken_back.steps = [(removal.remove_unused, (tool, steps.missing_chains(seen, shared)))]
    commands += _former_gateways(tool, seen, shared)
    _apply(tool, "leave what networks ask their gateways to the host", commands, taken_back)


def _former_gateways(tool: Tool, seen: steps.Seen, wanted: Sequence[rules.Shared]) -> list[str]:
    """Forget gateways that the host does not have, other than `wanted`, where GC has not come by for long."""
    if len(seen.get(rules.GATEWAYS, ())) < _MOST_GATEWAYS:
        return []
    former = steps.former_gateways(seen, removal.addresses_of_host(tool.version))
    own = {each.chain for each in wanted}
    return steps.forget_gateways([rule for rule in former if rules.find_target(rule) not in own])


def _publish_as_usual(tool: Tool, intent: PortForward, taken_back: _TakenBack) -> bool:
    """Publish ports where all that is shared is there and nothing of the container's; False if not so.

    One child process instead of two, or none where a call before has proven that what is shared is right.
    """
    shared = rules.shared_chains(intent, tool.version)
    taken_back.steps = [(removal.remove_chain, (tool, rules.forward_chain(intent.owner)))]
    proof = fast.Proof(shared) if fast.speaks_for(tool) else None
    if not (proof.is_whole if proof else variants.has_once(tool.version, shared)):
        return False
    if proof and _publish_by_netlink(tool, intent, proof):
        return True
    try:
        _apply(tool, _publishing(intent), steps.publish_as_usual(intent, tool.version), taken_back)
    except RefusedError:
        return False
    if proof:
        proof.remember()
    return True


def _publish_by_netlink(tool: Tool, intent: PortForward, proof: fast.Proof) -> bool:
    made = [*rules.forward_rules(intent, tool.version), *rules.forward_entries(intent, tool.version)]
    chain = rules.forward_chain(intent.owner)
    for _ in range(_NETLINK_TRIES):
        if not (proof.is_whole and proof.is_known):
            return False
        if fast.make_chain(_publishing(intent), chain, made, proof.generation):
            return True
        if nft.generation() == proof.generation:
            return False
        proof = fast.Proof(rules.shared_chains(intent, tool.version))
    return False


def _publishing(intent: PortForward) -> str:
    return f"publish ports of container {intent.owner.container_id} on network {intent.owner.network}"


def _read_for_forward(tool: Tool, shared: Sequence[rules.Shared], chain: str) -> dict[str, list[str]]:
    """Read what an ADD depends on: not the shared chain of all containers unless ours is there already."""
    jumps = [jump.rule for each in shared for jump in each.jumps]
    marking = [each.chain for each in shared if each.chain != rules.DNAT]
    seen = tool.list_chains(list(dict.fromkeys([*(jump.chain for jump in jumps), *marking, chain])))
    leads_there = any(
        rule and rules.find_target(rule) == rules.DNAT
        for name in ("PREROUTING", "OUTPUT")
        for rule in map(rules.parse_rule, seen[name])
    )
    if leads_there and chain not in seen:
        return {**seen, rules.DNAT: []}
    return seen | tool.list_chains([rules.DNAT])


def _make_masquerade(tool: Tool, intent: Masquerade, taken_back: _TakenBack) -> bool:
    """Make the container's chain and the jumps to it; False, and nothing done, when the chain is there."""
    chain = rules.masquerade_chain(intent.owner)
    taken_back.steps = [(removal.remove_chain, (tool, chain))]
    if fast.speaks_for(tool):
        wanted = [
            *rules.masquerade_rules(intent, tool.version),
            *rules.masquerade_jumps(intent, tool.version),
        ]
        if fast.make_chain(_masquerading(intent), chain, wanted):
            return True
    try:
        _apply(tool, _masquerading(intent), steps.make_masquerade(intent, tool.version), taken_back)
    except RefusedError as error:
        if error.is_conflict and tool.list_chain(chain) is not None:
            return False
        raise
    return True


def _complete_masquerade(tool: Tool, intent: Masquerade, taken_back: _TakenBack) -> None:
    chain = rules.masquerade_chain(intent.owner)
    seen = tool.list_chains([chain, "POSTROUTING"])
    missing = steps.complete_masquerade(seen, intent, tool.version)
    doing = _masquerading(intent)
    back = [rule.as_command("-D") for rule in missing]
    taken_back.steps = [(tool.apply, (f"undo: {doing}", back))]
    commands = [] if chain in seen else [f"-N {chain}"]
    for rule in missing:
        is_subnet = rules.find_target(rule) == "ACCEPT"
        commands.append(rule.as_command("-I" if is_subnet else "-A"))
    _apply(tool, doing, commands, taken_back)


def _apply(tool: Tool, doing: str, commands: Sequence[str], taken_back: _TakenBack) -> None:
    """Run a transaction; of one that was refused there is nothing to take back."""
    try:
        tool.apply(doing, commands)
    except RefusedError:
        taken_back.steps = []
        raise


def _masquerading(intent: Masquerade) -> str:
    return f"masquerade container {intent.owner.container_id} on network {intent.owner.network}"


def _remove_from(tool: Tool, chain: str) -> None:
    with _where_there_is_nat():
        removal.remove_chain(tool, chain)


@contextmanager
def _where_there_is_nat() -> Iterator[None]:
    """Let removals pass where the kernel has no table nat for the family: there is nothing to remove."""
    try:
        yield
    except RefusedError as error:
        if not error.is_without_table:
            raise


def _differences(tool: Tool, wanted: Sequence[rules.Rule]) -> list[str]:
    seen = tool.list_chains(list(dict.fromkeys(rule.chain for rule in wanted)))
    found = [
        f"chain {chain} not found in iptables table nat"
        for chain in dict.fromkeys(rule.chain for rule in wanted)
        if chain not in seen
    ]
    return found + [
        f"rule {rule.line} not found in chain {rule.chain} in iptables table nat"
        for rule in wanted
        if rule.chain in seen and rule.line not in seen[rule.chain] and not tool.has(rule.as_command("-C"))
    ]

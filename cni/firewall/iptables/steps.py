"""From the rules that are there and those that are wanted to the commands of one transaction. Pure.

`seen` is a table as read: chain name to the lines that `iptables -S` prints for it, missing chains left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from cni.firewall.iptables import rules

if TYPE_CHECKING:
    from cni.firewall.intents import Masquerade, PortForward
    from cni.firewall.iptables.rules import Rule, Shared

Seen = Mapping[str, Sequence[str]]
# Tells whether a rule is there although no line reads like it, as with options that print in another form.
Has = Callable[["Rule"], bool]


def ensure_shared(seen: Seen, wanted: Sequence[Shared], has: Has) -> list[str]:
    """Have each shared chain, rule and jump exactly once; Go plugins that start together make doubles."""
    commands = []
    for shared in wanted:
        if shared.chain not in seen:
            commands.append(f"-N {shared.chain}")
        for rule in shared.rules:
            commands += _ensure_once(seen, rule, has, first=False)
        for jump in shared.jumps:
            commands += _ensure_once(seen, jump.rule, has, first=jump.first)
    return commands


def _ensure_once(seen: Seen, rule: Rule, has: Has, *, first: bool) -> list[str]:
    count = list(seen.get(rule.chain, ())).count(rule.line)
    if count == 1:
        return []
    if not count and seen.get(rule.chain) and has(rule):
        return []
    return [rule.as_command("-D")] * count + [rule.as_command("-I" if first else "-A")]


def publish_as_usual(intent: PortForward, version: int) -> list[str]:
    """Make the container's chain and what leads to it; refused unless all that is shared is there."""
    needed = [
        rule
        for shared in rules.shared_chains(intent, version)
        for rule in (*shared.rules, *(jump.rule for jump in shared.jumps))
    ]
    made = [*rules.forward_rules(intent, version), *rules.forward_entries(intent, version)]
    return [
        *(each.as_command("-C") for each in needed),
        f"-N {rules.forward_chain(intent.owner)}",
        *(each.line for each in made),
    ]


def missing_chains(seen: Seen, wanted: Sequence[Shared]) -> list[Shared]:
    """Give those that `ensure_shared` will make."""
    return [shared for shared in wanted if shared.chain not in seen]


def ensure_forward(seen: Seen, intent: PortForward, version: int, has: Has) -> list[str]:
    """Have the container's own chain, and the shared chain lead to it.

    Rules of a chain that is there already stay behind the new ones: they are of another link of the container
    on this network, whose chain has the same name, or of an earlier run.
    """
    chain = rules.forward_chain(intent.owner)
    wanted = rules.forward_rules(intent, version)
    entries = rules.forward_entries(intent, version)
    if chain not in seen:
        return [f"-N {chain}", *(each.line for each in (*wanted, *entries))]
    lines = [each.line for each in wanted]
    others = [line for line in seen[chain] if line not in lines]
    missing = [each.line for each in entries if each.line not in seen[rules.DNAT] and not has(each)]
    return [f"-F {chain}", *lines, *others, *missing]


def restore_forward(seen: Seen, intent: PortForward, version: int, has: Has) -> list[str]:
    """Give the inverse of `ensure_forward` where the chain was there before."""
    chain = rules.forward_chain(intent.owner)
    added = [
        each
        for each in rules.forward_entries(intent, version)
        if each.line not in seen[rules.DNAT] and not has(each)
    ]
    return [*(each.as_command("-D") for each in added), f"-F {chain}", *seen[chain]]


def make_masquerade(intent: Masquerade, version: int) -> list[str]:
    """Make the container's chain, which must be missing, and the jumps to it."""
    wanted = [*rules.masquerade_rules(intent, version), *rules.masquerade_jumps(intent, version)]
    return [f"-N {rules.masquerade_chain(intent.owner)}", *(each.line for each in wanted)]


def complete_masquerade(seen: Seen, intent: Masquerade, version: int) -> list[Rule]:
    """Give what a chain lacks that another link of the container has made."""
    wanted = [*rules.masquerade_rules(intent, version), *rules.masquerade_jumps(intent, version)]
    return [each for each in wanted if each.line not in seen.get(each.chain, ())]


def remove_chain(seen: Seen, chain: str, parents: Sequence[str]) -> list[str]:
    """Remove a chain, if it is there, with every rule of `parents` that leads to it."""
    if chain not in seen:
        return []
    leading = [
        rule.as_command("-D")
        for parent in parents
        for line in seen.get(parent, ())
        if (rule := rules.parse_rule(line)) and rules.find_target(rule) == chain
    ]
    return [*leading, f"-F {chain}", f"-X {chain}"]


def former_gateways(seen: Seen, of_host: Collection[str]) -> list[Rule]:
    """Return the rules for gateways whose addresses the host does not have: nothing can be sent to them."""
    found = filter(None, map(rules.parse_rule, seen.get(rules.GATEWAYS, ())))
    return [rule for rule in found if rules.find_gateway(rule) not in of_host]


def forget_gateways(former: Sequence[Rule]) -> list[str]:
    """Remove rules for gateways, and the chains that they lead to."""
    commands = []
    for rule in former:
        chain = rules.find_target(rule)
        commands += [rule.as_command("-D"), f"-F {chain}", f"-X {chain}"]
    return commands


def remove_shared(made: Sequence[Shared]) -> list[str]:
    """Remove shared chains; the transaction fails, as it should, when anybody uses one of them."""
    commands = []
    for shared in reversed(made):
        commands += [jump.rule.as_command("-D") for jump in shared.jumps]
        commands += [rule.as_command("-D") for rule in shared.rules]
        commands.append(f"-X {shared.chain}")
    return commands

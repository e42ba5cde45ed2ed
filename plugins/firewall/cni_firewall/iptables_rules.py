"""The rules of the Go plugin for iptables, as values. Pure.

They name no owner, so that either suite finds those of the other: the address is their key, or the bridge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall.iptables.rule import Jump, Rule, Shared, comment_match
from cni_firewall.plan import GO_ISOLATED

if TYPE_CHECKING:
    from cni.result import IpAddress

FILTER, HOOK = "filter", "FORWARD"
ADMITTED = "CNI-FORWARD"
FIRST_STAGE, SECOND_STAGE = "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2"

_POLICIES = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
_SAME_BRIDGE = "CNI firewall plugin rules (ingressPolicy: same-bridge)"
_ISOLATED = "CNI firewall plugin rules (ingressPolicy: isolated)"


def admission(address: IpAddress) -> tuple[Rule, Rule]:
    """Return the rules that admit an address."""
    text = f"{address}/{address.max_prefixlen}"
    established = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED")
    return (
        Rule(FILTER, ADMITTED, (("-d", text), established), ("ACCEPT",)),
        Rule(FILTER, ADMITTED, (("-s", text),), ("ACCEPT",)),
    )


def admission_chains(admin_chain: str) -> tuple[Shared, Shared]:
    """Return the chain of these rules, and the administrator's, which comes first in it."""
    to_admitted = Rule(FILTER, HOOK, (comment_match("CNI firewall plugin rules"),), (ADMITTED,))
    comment = comment_match("CNI firewall plugin admin overrides")
    to_admin = Rule(FILTER, ADMITTED, (comment,), (admin_chain,))
    return (
        Shared(ADMITTED, (), (Jump(to_admitted, first=True),)),
        Shared(admin_chain, (), (Jump(to_admin, first=True),)),
    )


def isolation(bridge: str, policy: str) -> list[Rule]:
    """Return the rules that isolate a bridge, in the order in which each is put before all of its chain."""
    out, inside = ("-i", bridge), ("!", "-o", bridge)
    comment = _ISOLATED if policy == GO_ISOLATED else _SAME_BRIDGE
    found = [Rule(FILTER, FIRST_STAGE, (out, inside, comment_match(comment)), (SECOND_STAGE,))]
    if policy == GO_ISOLATED:
        matches = (out, ("-o", bridge), comment_match(comment))
        found.append(Rule(FILTER, FIRST_STAGE, matches, ("DROP",)))
    return [*found, Rule(FILTER, SECOND_STAGE, (("-o", bridge), comment_match(_POLICIES)), ("DROP",))]


def isolation_ends() -> list[Rule]:
    """Return the rules that lead to the chains, and that end them."""
    comment = comment_match(_POLICIES)
    return [
        Rule(FILTER, HOOK, (comment,), (FIRST_STAGE,)),
        Rule(FILTER, FIRST_STAGE, (comment,), ("RETURN",)),
        Rule(FILTER, SECOND_STAGE, (comment,), ("RETURN",)),
    ]


def as_current(rule: Rule) -> Rule:
    """Return a rule with the comment of today instead of that of Go's v1.1 to v1.6, which had one for all."""
    is_shared = rule.chain == HOOK or rule.leads_to == "RETURN" or rule.chain == SECOND_STAGE
    if rule.comment != _SAME_BRIDGE or not is_shared:
        return rule
    return rule._replace(
        matches=tuple(comment_match(_POLICIES) if each[-1] == _SAME_BRIDGE else each for each in rule.matches)
    )


def bridge_of(rule: Rule) -> str:
    """Return the bridge that a rule of these chains isolates, "" if it is none of them."""
    if rule.chain not in {FIRST_STAGE, SECOND_STAGE} or not rule.comment.startswith(_SAME_BRIDGE[:25]):
        return ""
    words = {match[0]: match[1] for match in rule.matches if len(match) == 2}
    return words.get("-i") or words.get("-o") or ""

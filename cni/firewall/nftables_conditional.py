"""Published ports under conditions: a chain of rules for each owner, jumped to where its conditions hold.

The slow way, by nft's text: conditions are the user's own words in nft's syntax.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, owners
from cni.firewall.nftables_layout import CONDITIONAL, FAMILIES, TABLE
from cni.firewall.nftables_plan import (
    conditions_of,
    family_of,
    has_host_ip,
    mappings_of,
    protocol_number,
)

if TYPE_CHECKING:
    from cni.firewall.intents import Owner, PortForward
    from cni.result import IpInterface

_TRIES = 10
_ALLOWED = re.compile(r'[\w.:/,!=<>&|^~@{}()*"+\- ]+', re.ASCII)
# What would make of a match a statement, or end the rule.
_STATEMENTS = {
    "accept", "add", "comment", "continue", "counter", "create", "define", "delete", "destroy", "dnat",
    "drop", "dup", "flow", "flush", "fwd", "goto", "include", "insert", "jump", "limit", "list", "log",
    "masquerade", "meter", "mirror", "monitor", "notrack", "queue", "quota", "redefine", "redirect",
    "reject", "rename", "replace", "reset", "return", "set", "snat", "synproxy", "tproxy", "undefine",
    "update", "vmap", "xt",
}  # fmt: skip


def check(conditions: tuple[str, ...], field: str) -> None:
    """Raise CniError 7, naming the token, unless these can only be matches of one rule."""
    for token in conditions:
        words = re.findall(r"\w+", re.sub(r'"[^"]*"', "", token), re.ASCII)
        if not _ALLOWED.fullmatch(token) or token.count('"') % 2 or _STATEMENTS & set(words):
            _refuse(field, token, "it may hold nftables matches only, one rule's")
    depth = 0
    for char in re.sub(r'"[^"]*"', "", " ".join(conditions)):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth not in {0, 1}:
            break
    if depth:
        _refuse(field, " ".join(conditions), "braces must come in pairs, not within each other")


def _refuse(field: str, token: str, why: str) -> None:
    raise CniError(Code.INVALID_CONFIG, f'invalid token {token!r} in "{field}"', why)


def add(intent: PortForward) -> None:
    """Make the rules of those targets for which there are conditions; the shared part must exist."""
    for target in intent.targets:
        if conditions_of(intent, target) and mappings_of(intent, target):
            nft.run_text(_text(intent, target), "publish host ports under conditions")


def _text(intent: PortForward, target: IpInterface) -> str:
    ip = nft.FAMILY_NAMES[family_of(target)]
    chain, told = _chain(intent.owner), owners.comment(intent.owner)
    conditions = " ".join(conditions_of(intent, target))
    lines = [f"add chain {ip} {TABLE} {chain}"]
    for mapping in mappings_of(intent, target):
        host_ip = f"{ip} daddr {mapping.host_ip} " if has_host_ip(mapping) else ""
        address = f"[{target.ip}]" if target.version == 6 else target.ip
        lines.append(
            f"add rule {ip} {TABLE} {chain} {host_ip}meta l4proto {protocol_number(mapping)} "
            f"th dport {mapping.host_port} dnat to {address}:{mapping.container_port}"
        )
    lines.append(f'add rule {ip} {TABLE} {CONDITIONAL} {conditions} jump {chain} comment "{told}"')
    return "\n".join(lines) + "\n"


def _chain(owner: Owner) -> str:
    return "own-" + owners.tag(owner)


def differences(intent: PortForward) -> list[str]:
    """Tell what is missing of an owner's rules."""
    found = []
    for target in intent.targets:
        mappings = mappings_of(intent, target)
        if not conditions_of(intent, target) or not mappings:
            continue
        family = family_of(target)
        rules = nft.list_rules(family, TABLE, _chain(intent.owner))
        jumps = [rule for rule in nft.list_rules(family, TABLE, CONDITIONAL) if _is_of(rule, intent.owner)]
        if len(rules) != len(mappings) or not jumps:
            found.append(
                f"nftables rules for host ports under conditions are missing ({nft.FAMILY_NAMES[family]})"
            )
    return found


def _is_of(rule: nft.Rule, owner: Owner) -> bool:
    return rule.comment.startswith(owners.tag(owner))


def remove(owner: Owner) -> None:
    """Take away an owner's chain and the jumps to it; an owner without one costs one look-up per family."""
    for family in FAMILIES:
        _remove_chain(family, _chain(owner))


def _remove_chain(family: int, chain: str) -> None:
    for _ in range(_TRIES):
        if nft.find_chain(family, TABLE, chain) is None:
            return
        tag = chain.removeprefix("own-")
        jumps = [rule for rule in nft.list_rules(family, TABLE, CONDITIONAL) if rule.comment.startswith(tag)]
        done = nft.commit_deletions(
            [
                *map(nft.delete_rule, jumps),
                nft.flush_chain(family, TABLE, chain),
                nft.delete_chain(family, TABLE, chain),
            ]
        )
        if done:
            return
    raise CniError(Code.TRY_AGAIN, f"could not remove nftables chain {chain}: others kept changing it")


def remove_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """Take away chains of a network's owners whose tags are not in `valid`; gives the comments."""
    prefix = owners.network_tag(network)
    removed = []
    for family in FAMILIES:
        for rule in nft.list_rules(family, TABLE, CONDITIONAL):
            tag = rule.comment[: len(prefix) + 16]
            if rule.comment.startswith(prefix) and tag not in valid:
                _remove_chain(family, f"own-{tag}")
                removed.append(rule.comment)
    return removed

"""Whether containers still have what was made for them, told by their names alone, for STATUS.

What exactly they should have depends on addresses and ports, which only their CHECK is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.execute import Tool
from cni.firewall.nftables import base, chains, elements, foreign, records
from cni.firewall.nftables.layout import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cni.firewall.intents import Owner

_VERSIONS = (4, 6)


def without_masquerade(owners: Sequence[Owner], versions: Collection[int]) -> list[Owner]:
    """List those that no backend masquerades; with iptables each of these IP versions must be there."""
    if not owners:
        return []
    lost = _lost_in_nftables(owners, "masquerade", foreign.has_rules_of)
    if not lost:
        return []
    led_to = {version: _led_to(version, ["POSTROUTING"]) for version in versions or _VERSIONS}
    few = all if versions else any
    return [
        owner for owner in lost if not few(rules.masquerade_chain(owner) in led_to[each] for each in led_to)
    ]


def without_forward(owners: Sequence[Owner]) -> list[Owner]:
    """List those whose published ports no backend forwards."""
    if not owners:
        return []
    lost = _lost_in_nftables(owners, "forward", _has_chain)
    if not lost:
        return []
    led_to = [_led_to(version, ["PREROUTING", rules.DNAT]) for version in _VERSIONS]
    return [
        owner
        for owner in lost
        if not any({rules.DNAT, rules.forward_chain(owner)} <= found for found in led_to)
    ]


def may_be_published(owner: Owner) -> bool:
    """Return whether rules may publish ports of an owner. False only where all proves that they are removed.

    The Go plugins' DEL leaves the shared chain and removes the owner's. Where neither is there a firewall was
    flushed, and a repair publishes the ports again. Nobody but us removes elements of nftables.
    """
    if records.exists("forward", owner):
        return True
    try:
        seen = {name for name in (rules.DNAT, rules.forward_chain(owner)) if _may_have_chain(name)}
    except (CniError, OSError):
        return True
    return seen != {rules.DNAT}


def _may_have_chain(name: str) -> bool:
    return any(variants.may_have_chain(version, name) for version in _VERSIONS)


def _lost_in_nftables(owners: Sequence[Owner], kind: str, has_others: Callable[[Owner], bool]) -> list[Owner]:
    try:
        sound = {family for family in FAMILIES if not base.differences(family, [], is_guarded=False)}
        return [owner for owner in owners if not _is_in_nftables(owner, kind, sound, has_others)]
    except CniError:
        # A kernel without nftables: then they are elsewhere or lost.
        return list(owners)


def _is_in_nftables(
    owner: Owner, kind: str, sound: Collection[int], has_others: Callable[[Owner], bool]
) -> bool:
    recorded = records.read(kind, owner)
    if not recorded:
        return has_others(owner)
    return all(each.family in sound and elements.find(each) for each in recorded)


def _has_chain(owner: Owner) -> bool:
    found = [chains.list_published(kind, owner, family) for kind in chains.KINDS for family in FAMILIES]
    return any(found)


def _led_to(version: int, names: Sequence[str]) -> set[str]:
    """Give the chains of iptables to which rules of these chains lead."""
    tool = Tool(version)
    try:
        listings = [having.list_while_there(names) for having in variants.list_with_table(tool)]
    except CniError:
        return set()
    lines = [line for listing in listings for of_chain in listing.values() for line in of_chain]
    return {rules.find_target(rule) for rule in map(rules.parse_rule, lines) if rule}

"""The rules in chains of other tables that accept what is admitted.

A base chain that drops by its policy, for example `inet filter forward` of nftables.service or the `FORWARD`
of iptables' nf_tables variant, would drop admitted packets, whatever other tables accept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni.firewall import nft
from cni.kernel.attributes import attributes, shown_text
from cni.kernel.nfnetlink import Message, kept
from cni_firewall.nftables_layout import GATE, MARK
from cni_firewall.plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

# <linux/netfilter/nf_tables.h>, <linux/netfilter.h>
_GETCHAIN = 4
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_FORWARD, _DROP = 2, 0
_FAMILIES = (nft.INET, nft.IPV4, nft.IPV6)
# What nft's scripts take as a name.
_WORD = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*")


def list_missing() -> list[nft.Place]:
    """Return the chains that drop what is forwarded by their policy and have no rule of ours."""
    return [each for each in _list_closed() if not _list_rules(each)]


def ensure() -> None:
    """Let admitted packets through all chains that drop by their policy. Raise CniError 101."""
    commands = [
        f"insert rule {nft.FAMILY_NAMES[family]} {table} {chain} "
        f'meta mark & {MARK:#x} == {MARK:#x} accept comment "{GATE}"'
        for family, table, chain in list_missing()
    ]
    if commands:
        nft.run_text("\n".join([*commands, ""]), "let admitted packets through other tables")


def list_present() -> list[nft.Place]:
    """Return the chains of other tables that have a rule of ours."""
    return [each for each in _list_hooked() if _list_rules(each)]


def remove(places: Iterable[nft.Place]) -> None:
    """Remove our rules from these chains."""
    nft.commit_deletions([nft.delete_rule(rule) for each in places for rule in _list_rules(each)])


def _list_rules(place: nft.Place) -> list[nft.Rule]:
    found = nft.list_rules_with(*place, [GATE.encode()])
    return [rule for rule in found if rule.comment == GATE]


def _list_closed() -> list[nft.Place]:
    return [place for place, policy in _dump() if policy == _DROP]


def _list_hooked() -> list[nft.Place]:
    return [place for place, _ in _dump()]


def _dump() -> list[tuple[nft.Place, int]]:
    """Return the chains of other tables that are hooked where packets are forwarded, and their policies."""
    found = []
    for family in _FAMILIES:
        for reply in kept().dump(Message("list chains", nft.kind(_GETCHAIN), family)):
            parts = attributes(reply)
            hook = attributes(parts.get(_HOOK, b""))
            table, name = (shown_text(parts.get(each, b"")) for each in (_TABLE, _NAME))
            is_ours = table == TABLE
            if is_ours or not hook or int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big") != _FORWARD:
                continue
            if _WORD.fullmatch(table) and _WORD.fullmatch(name):
                found.append(((family, table, name), int.from_bytes(parts.get(_POLICY, b"\1"), "big")))
    return found

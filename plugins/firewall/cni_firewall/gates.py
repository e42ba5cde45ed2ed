"""The rules in chains of other tables that accept what is admitted.

A base chain that drops by its policy, for example `inet filter forward` of nftables.service or the `FORWARD`
of iptables' nf_tables variant, would drop admitted packets, whatever other tables accept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall import nft
from cni.kernel.filtering import FORWARD, list_hooked
from cni_firewall.nftables_layout import GATE, MARK
from cni_firewall.plan import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable


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
    return [each[:3] for each in list_hooked(FORWARD) if each.has_drop_policy and each.table != TABLE]


def _list_hooked() -> list[nft.Place]:
    return [each[:3] for each in list_hooked(FORWARD) if each.table != TABLE]

"""Find and remove the rules of the Go plugins' nftables backends (v1.6 to v1.9).

Their rules are found by comment, which takes time linear in their number, as it does in the Go plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, owners

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.firewall.intents import Masquerade, Owner

PORTMAP_TABLE = "cni_hostport"
# Up to v1.8 rules with a host IP are in a chain of their own.
PORTMAP_CHAINS = ("hostports", "hostip_hostports", "masquerading")
MASQUERADE_TABLE = "cni_plugins_masquerade"
MASQUERADE_CHAIN = "masq_checks"
_TRIES = 10


def remove_forward(owner: Owner) -> None:
    """Remove portmap's rules, of all networks: their comment is the container ID only."""
    for family in (nft.IPV4, nft.IPV6):
        if nft.has_table(family, PORTMAP_TABLE):
            for chain in PORTMAP_CHAINS:
                _remove(family, PORTMAP_TABLE, chain, owner.container_id.__eq__)


def has_masquerade(intent: Masquerade) -> bool:
    """Return whether the Go plugins masquerade all of the addresses."""
    if not nft.has_table(nft.INET, MASQUERADE_TABLE):
        return False
    tag = owners.tag(intent.owner)
    rules = nft.list_rules(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN)
    own = [rule.raw for rule in rules if rule.comment.startswith(tag)]
    return all(any(address.ip.packed in raw for raw in own) for address in intent.addresses)


def has_rules_of(owner: Owner) -> bool:
    """Return whether the Go plugins masquerade an attachment, whatever its addresses."""
    if not nft.has_table(nft.INET, MASQUERADE_TABLE):
        return False
    rules = nft.list_rules(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN)
    return any(rule.comment.startswith(owners.tag(owner)) for rule in rules)


def remove_masquerade(owner: Owner) -> None:
    """Remove the masquerading of an attachment."""
    tag = owners.tag(owner)
    if nft.has_table(nft.INET, MASQUERADE_TABLE):
        _remove(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN, lambda comment: comment.startswith(tag))


def list_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """List the comments of masquerading rules of a network's attachments whose tags are not in `valid`."""
    if not nft.has_table(nft.INET, MASQUERADE_TABLE):
        return []
    prefix = owners.network_tag(network)
    comments = (rule.comment for rule in nft.list_rules(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN))
    return [each for each in comments if each.startswith(prefix) and owners.tag_of(each) not in valid]


def remove_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """Remove masquerading of a network's attachments whose tags are not in `valid`. Return the comments.

    Rules of portmap do not name their network.
    """
    prefix = owners.network_tag(network)

    def is_invalid(comment: str) -> bool:
        return comment.startswith(prefix) and owners.tag_of(comment) not in valid

    if not nft.has_table(nft.INET, MASQUERADE_TABLE):
        return []
    return _remove(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN, is_invalid)


def _remove(family: int, table: str, chain: str, is_wanted: Callable[[str], bool]) -> list[str]:
    for _ in range(_TRIES):
        rules = [rule for rule in nft.list_rules(family, table, chain) if is_wanted(rule.comment)]
        if nft.commit_deletions(list(map(nft.delete_rule, rules))):
            return [rule.comment for rule in rules]
    raise CniError(
        Code.TRY_AGAIN,
        f"could not remove rules of nftables chain {table} {chain}: another program kept changing it",
    )

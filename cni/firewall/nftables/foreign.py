"""Find and remove the rules of the Go plugins' nftables backends (v1.6 to v1.9).

Their rules are found by comment, which takes time linear in their number, as it does in the Go plugins.
"""

from __future__ import annotations

from functools import partial
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
            _remove(partial(_publishing, family, owner.container_id))


def _publishing(family: int, container_id: str) -> list[nft.Rule]:
    listed = [rule for chain in PORTMAP_CHAINS for rule in nft.list_rules(family, PORTMAP_TABLE, chain)]
    return [rule for rule in listed if rule.comment == container_id]


def has_masquerade(intent: Masquerade) -> bool:
    """Return whether the Go plugins masquerade all of the addresses."""
    own = [rule.raw for rule in _masquerading(owners.tag(intent.owner))]
    return all(any(address.ip.packed in raw for raw in own) for address in intent.addresses)


def has_rules_of(owner: Owner) -> bool:
    """Return whether the Go plugins masquerade an attachment, whatever its addresses."""
    return bool(_masquerading(owners.tag(owner)))


def remove_masquerade(owner: Owner) -> None:
    """Remove the masquerading of an attachment."""
    _remove(lambda: _masquerading(owners.tag(owner)))


def list_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """List the comments of masquerading rules of a network's attachments whose tags are not in `valid`."""
    return [rule.comment for rule in _invalid(network, valid)]


def remove_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """Remove masquerading of a network's attachments whose tags are not in `valid`. Return the comments.

    Rules of portmap do not name their network.
    """
    return [rule.comment for rule in _remove(lambda: _invalid(network, valid))]


def _masquerading(tag: str) -> list[nft.Rule]:
    # To look for a table costs less than to list the rules of a chain, which is seldom there.
    if not nft.has_table(nft.INET, MASQUERADE_TABLE):
        return []
    listed = nft.list_rules(nft.INET, MASQUERADE_TABLE, MASQUERADE_CHAIN)
    return [rule for rule in listed if rule.comment.startswith(tag)]


def _invalid(network: str, valid: frozenset[str]) -> list[nft.Rule]:
    listed = _masquerading(owners.network_tag(network))
    return [rule for rule in listed if owners.tag_of(rule.comment) not in valid]


def _remove(find: Callable[[], list[nft.Rule]]) -> list[nft.Rule]:
    for _ in range(_TRIES):
        rules = find()
        if nft.commit_deletions(list(map(nft.delete_rule, rules))):
            return rules
    raise CniError(
        Code.TRY_AGAIN,
        f"could not remove rules of nftables chain {rules[0].table} {rules[0].chain}:"
        " another program kept changing it",
    )

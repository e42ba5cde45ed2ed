"""Published ports that cannot be elements of a map: rules in a chain of the owner's.

There are two kinds, each with a shared chain that jumps to the owners' chains. `CONDITIONAL` ones, asked
before the maps, are for ports under conditions, which are the user's own words in nft's syntax. `SECOND`
ones, asked after the maps, are for ports that the same container has published already through another
network: they serve when that attachment goes. Made the slow way, by nft's text.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall import nft, orphans, owners
from cni.firewall.nftables.layout import CONDITIONAL, FAMILIES, SECOND, TABLE
from cni.firewall.nftables.plan import shown_forward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni.firewall.intents import Owner
    from cni.firewall.nftables.elements import Element

KINDS = (CONDITIONAL, SECOND)
_TRIES = 10


def _chain(kind: str, tag: str) -> str:
    return f"{kind}-{tag}"


def add(
    kind: str, owner: Owner, published: Sequence[Element], conditions: Mapping[int, tuple[str, ...]]
) -> None:
    """Make rules for elements of the port maps; `conditions` by family have been checked.

    The tables and nothing of the owner's of this kind must exist.
    """
    families = dict.fromkeys(each.family for each in published)
    script = "".join(
        _text(
            kind,
            owner,
            [each for each in published if each.family == family],
            " ".join(conditions.get(family, ())),
        )
        for family in families
    )
    if script:
        with orphans.bound(owner):
            nft.run_text(script, "publish host ports by rules")


def _text(kind: str, owner: Owner, published: Sequence[Element], conditions: str) -> str:
    where = f"{nft.FAMILY_NAMES[published[0].family]} {TABLE}"
    chain = _chain(kind, owners.tag(owner))
    by_address = [each for each in published if shown_forward(each).host_ip]
    others = [each for each in published if each not in by_address]
    rules = [f'add rule {where} {chain} {_rule(each)} comment "{each.what}"\n' for each in by_address]
    # What an address was named for is meant; all else is not for what a network sends to its gateway.
    rules.append(f"add rule {where} {chain} jump gateways\n")
    rules += [f'add rule {where} {chain} {_rule(each)} comment "{each.what}"\n' for each in others]
    jump = f'add rule {where} {kind} {conditions} jump {chain} comment "{owners.comment(owner)}"\n'
    return f"add chain {where} {chain}\n{''.join(rules)}{jump}"


def _rule(element: Element) -> str:
    ip = nft.FAMILY_NAMES[element.family]
    forward = shown_forward(element)
    host_ip = f"{ip} daddr {ip_address(forward.host_ip)} " if forward.host_ip else ""
    address = ip_address(forward.address)
    to = f"[{address}]" if address.version == 6 else f"{address}"
    ports = f"th dport {forward.host_port} dnat to {to}:{forward.container_port}"
    return f"{host_ip}meta l4proto {forward.protocol} {ports}"


def list_published(kind: str, owner: Owner, family: int) -> list[str]:
    """Tell what an owner's rules of a kind publish, in the words of elements; [] if nothing leads to them."""
    tag = owners.tag(owner)
    rules = nft.list_rules(family, TABLE, _chain(kind, tag))
    return [rule.comment for rule in rules] if rules and _jumps(family, kind, tag) else []


def _jumps(family: int, kind: str, tag: str) -> list[nft.Rule]:
    return [rule for rule in nft.list_rules(family, TABLE, kind) if rule.comment.startswith(tag)]


def remove(owner: Owner) -> None:
    """Take away an owner's chains and the jumps to them; one without costs one question to the kernel."""
    remove_found(owner, nft.which_chains(TABLE, names(owner)))


def names(owner: Owner) -> list[tuple[int, str]]:
    """Name the chains, each with its family, that an owner may have."""
    tag = owners.tag(owner)
    return [(family, _chain(kind, tag)) for family in FAMILIES for kind in KINDS]


def remove_found(owner: Owner, found: Sequence[tuple[int, str]]) -> None:
    """Take away those of an owner's chains that were found, and the jumps to them."""
    tag = owners.tag(owner)
    for family, chain in found:
        _remove(family, chain.partition("-")[0], tag)


def _remove(family: int, kind: str, tag: str) -> None:
    chain = _chain(kind, tag)
    for _ in range(_TRIES):
        if nft.find_chain(family, TABLE, chain) is None:
            return
        done = nft.commit_deletions(
            [
                *map(nft.delete_rule, _jumps(family, kind, tag)),
                nft.flush_chain(family, TABLE, chain),
                nft.delete_chain(family, TABLE, chain),
            ]
        )
        if done:
            return
    raise CniError(Code.TRY_AGAIN, f"could not remove nftables chain {chain}: others kept changing it")


def remove_invalid(network: str, valid: frozenset[str]) -> list[str]:
    """Take away chains of a network's owners whose tags are not in `valid`; gives the comments."""
    removed = []
    errors = ErrorList()
    for family, kind, told in _list_invalid(network, valid):
        errors.attempt(_remove, family, kind, owners.tag_of(told))
        removed.append(told)
    errors.raise_any()
    return removed


def list_invalid(network: str, valid: frozenset[str]) -> list[tuple[str, str]]:
    """List chains of a network's owners whose tags are not in `valid`, each with its comment."""
    return [
        (f"{nft.FAMILY_NAMES[family]} {TABLE} {_chain(kind, owners.tag_of(told))}", told)
        for family, kind, told in _list_invalid(network, valid)
    ]


def _list_invalid(network: str, valid: frozenset[str]) -> list[tuple[int, str, str]]:
    prefix = owners.network_tag(network)
    return [
        (family, kind, rule.comment)
        for family in FAMILIES
        for kind in KINDS
        for rule in nft.list_rules(family, TABLE, kind)
        if rule.comment.startswith(prefix) and owners.tag_of(rule.comment) not in valid
    ]

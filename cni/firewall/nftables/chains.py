"""Chains of an owner: rules made by nft's scripts, found and removed by comments.

Port forwards have two kinds of them, each with a shared chain that jumps to the owners' chains. `CONDITIONAL`
ones, asked before the maps, are for ports under conditions, which users write in nft's syntax. `SECOND` ones,
asked after the maps, are for ports that the same container has published already through another network:
they serve when that attachment is removed. Intents of other kinds have chains in tables of their own.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, ErrorList
from cni.firewall import nft, orphans, owners
from cni.firewall.nftables.elements import shown_clients, shown_forward
from cni.firewall.nftables.layout import CONDITIONAL, FAMILIES, SECOND, TABLE
from cni.kernel.nfnetlink import ChangedMeanwhileError, kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni.firewall.intents import Owner
    from cni.firewall.nftables.elements import Element

_TRIES = 10


class OwnChain(NamedTuple):
    """A chain of an owner, and the `parent` whose rule leads to it.

    The comment of that rule is `tag`, or begins with it and a comma.
    """

    family: int
    table: str
    parent: str
    name: str
    tag: str

    @property
    def place(self) -> nft.Place:
        """The chain's place in the ruleset."""
        return self.family, self.table, self.name

    def is_jump(self, rule: nft.Rule) -> bool:
        """Return whether a rule of the parent leads to this chain."""
        return rule.comment == self.tag or rule.comment.startswith(f"{self.tag},")


class StaleChain(NamedTuple):
    """A chain for GC, with the comment that names its owner."""

    chain: OwnChain
    comment: str


def tagged(family: int, table: str, parent: str, owner: Owner) -> OwnChain:
    """Return the chain of an owner to which a rule of `parent` leads.

    The comment of that rule must be `owners.comment`: GC finds the chain by it.
    """
    tag = owners.tag(owner)
    return OwnChain(family, table, parent, f"{parent}-{tag}", tag)


def of_owner(parent: str, owner: Owner, family: int) -> OwnChain:
    """Return the chain that an owner may have in our own table."""
    return tagged(family, TABLE, parent, owner)


@lru_cache(maxsize=64)
def all_of_owner(owner: Owner) -> tuple[OwnChain, ...]:
    """Return the chains that an owner may have in our own tables."""
    return tuple(of_owner(parent, owner, family) for family in FAMILIES for parent in (CONDITIONAL, SECOND))


def script(
    parent: str,
    owner: Owner,
    published: Sequence[Element],
    conditions: Mapping[int, Sequence[str]],
    restrictions: Sequence[Element],
) -> str:
    """Return the script that makes rules of elements of the port maps; `conditions` are by family.

    Those of `restrictions` that restrict a port become a rule as well. The tables must exist, and the owner's
    chain must not.
    """
    families = dict.fromkeys(each.family for each in published)
    return "".join(
        _script(
            of_owner(parent, owner, family),
            [(each, restriction(each, restrictions)) for each in published if each.family == family],
            " ".join(conditions.get(family, ())),
            owners.comment(owner),
        )
        for family in families
    )


def restriction(port: Element, restrictions: Sequence[Element]) -> list[Element]:
    """Return those elements that restrict a port; the first one is without a network of clients."""
    return sorted((each for each in restrictions if each.restricts(port)), key=lambda each: len(each.key))


def _script(
    own: OwnChain, published: Sequence[tuple[Element, list[Element]]], conditions: str, comment: str
) -> str:
    where = f"{nft.FAMILY_NAMES[own.family]} {own.table}"
    by_address = [each for each in published if shown_forward(each[0]).host_ip]
    others = [each for each in published if each not in by_address]
    # A port that names an address is published there. Other ports are not for a network's traffic to its
    # gateway.
    groups = [[line for each in group for line in _rules(*each)] for group in (by_address, others)]
    rules = [f"add rule {where} {own.name} {line}\n" for line in (*groups[0], "jump gateways", *groups[1])]
    jump = f'add rule {where} {own.parent} {conditions} jump {own.name} comment "{comment}"\n'
    return f"add chain {where} {own.name}\n{''.join(rules)}{jump}"


def _rules(port: Element, restrictions: Sequence[Element]) -> list[str]:
    ip = nft.FAMILY_NAMES[port.family]
    forward = shown_forward(port)
    host_ip = f"{ip} daddr {ip_address(forward.host_ip)} " if forward.host_ip else ""
    address = ip_address(forward.address)
    to = f"[{address}]" if address.version == 6 else f"{address}"
    match = f"{host_ip}meta l4proto {forward.protocol} th dport {forward.host_port}"
    publish = f'{match} dnat to {to}:{forward.container_port} comment "{port.purpose}"'
    if not restrictions:
        return [publish]
    allowed = ", ".join(map(shown_clients, restrictions[1:]))
    # As the rules for the maps do.
    others = f"{ip} saddr != {{ {allowed} }} " if allowed else ""
    return [f'iif != 0 {match} {others}accept comment "{restrictions[0].purpose}"', publish]


def run(script: str, owner: Owner, doing: str) -> None:
    """Run a script that makes chains of an owner. Raise CniError 101."""
    with orphans.bound(owner):
        nft.run_text(script, doing)


def list_comments(own: OwnChain) -> list[str]:
    """Return the comments of the rules of a chain, [] if no rule leads to it."""
    rules = nft.list_rules(*own.place)
    return [rule.comment for rule in rules] if rules and _jumps([own]) else []


def _jumps(owned: Iterable[OwnChain]) -> list[nft.Rule]:
    parents = dict.fromkeys((each.family, each.table, each.parent, each.tag) for each in owned)
    return [
        rule
        for family, table, parent, tag in parents
        for rule in nft.list_rules(family, table, parent)
        if OwnChain(family, table, parent, "", tag).is_jump(rule)
    ]


def remove(owned: Sequence[OwnChain]) -> None:
    """Remove those of an owner's chains that exist, and the jumps to them. None costs one question."""
    places = nft.which_chains([each.place for each in owned])
    remove_found([each for each in owned if each.place in places])


def remove_found(present: Sequence[OwnChain]) -> None:
    """Remove chains that have been found, and the jumps to them."""
    remaining = list(present)
    for _ in range(_TRIES):
        if not remaining:
            return
        places = [each.place for each in remaining]
        messages = [
            *map(nft.delete_rule, _jumps(remaining)),
            *(nft.flush_chain(*each) for each in places),
            *(nft.delete_chain(*each) for each in places),
        ]
        if nft.commit_deletions(messages):
            return
        places = nft.which_chains(places)
        remaining = [each for each in remaining if each.place in places]
    name = remaining[0].name
    raise CniError(
        Code.TRY_AGAIN, f"could not remove nftables chain {name}: another program kept changing it"
    )


class MissingParent(NamedTuple):
    """A parent of chains that did not exist before an ADD, perhaps with its table."""

    place: nft.Place
    is_table_missing: bool


def list_missing_parents(owned: Iterable[OwnChain]) -> list[MissingParent]:
    """Return those parents of chains that do not exist."""
    parents = list(dict.fromkeys((each.family, each.table, each.parent) for each in owned))
    existing = nft.which_chains(parents)
    return [MissingParent(each, not nft.has_table(*each[:2])) for each in parents if each not in existing]


def remove_with_parents(owned: Sequence[OwnChain], missing: Iterable[MissingParent]) -> None:
    """Remove chains, then parents without a rule, and a table that was missing if it has no other chain."""
    remove(owned)
    for (family, table, name), is_table_missing in missing:
        for _ in range(_TRIES):
            # Bound to the generation: a chain that another attachment begins to use must remain.
            number = nft.generation()
            listed = nft.list_chains(family, table)
            if name not in listed or nft.list_rules(family, table, name):
                break
            is_alone = is_table_missing and listed == [name]
            message = nft.delete_table(family, table) if is_alone else nft.delete_chain(family, table, name)
            try:
                kept().commit([message], number)
            except ChangedMeanwhileError:
                continue
            break


def remove_invalid(network: str, valid: frozenset[str], places: Sequence[nft.Place]) -> list[str]:
    """Remove the chains of `list_invalid`. Return the comments."""
    removed = []
    errors = ErrorList()
    for each in list_invalid(network, valid, places):
        errors.attempt(remove, [each.chain])
        removed.append(each.comment)
    errors.raise_any()
    return removed


def list_invalid(network: str, valid: frozenset[str], places: Sequence[nft.Place]) -> list[StaleChain]:
    """List the chains below these parents of a network's owners whose tags are not in `valid`."""
    prefix = owners.network_tag(network)
    found = [
        (place, rule.comment)
        for place in places
        for rule in nft.list_rules(*place)
        if rule.comment.startswith(prefix) and owners.tag_of(rule.comment) not in valid
    ]
    return [
        StaleChain(OwnChain(*place, f"{place[2]}-{owners.tag_of(comment)}", owners.tag_of(comment)), comment)
        for place, comment in found
    ]

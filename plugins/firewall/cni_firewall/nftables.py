"""The backend nftables, and isolation for all backends: elements of sets in tables of this plugin."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, orphans, owners
from cni.firewall.intents import Owner
from cni.firewall.nftables import elements
from cni_firewall import gates, uses
from cni_firewall.nftables_layout import (
    ADDRESSES,
    CHAINS,
    LINK_SETS,
    PORTS,
    SETS,
    admitted,
    allowed,
    link_of,
    of_link,
    ports,
    script,
)
from cni_firewall.plan import TABLE
from cni_firewall.uses import Use

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cni.firewall.nftables.elements import Element
    from cni_firewall.plan import Plan

_OWNED_SETS = {*ADDRESSES.values(), PORTS}
_NOBODY = Owner("", "", "")


def exists() -> bool:
    """Return whether any attachment of the host has needed the table."""
    return nft.has_table(nft.INET, TABLE)


def apply(plan: Plan, new_tables: list[int], *, admits: bool, is_first: bool) -> None:
    """Make the plan's elements in one transaction, and what they need. `uses.locked` must be held.

    `new_tables` gets the families of tables that did not exist. `remove` is the inverse.
    Without `admits` another backend admits the addresses. `is_first`: the plan's link has a policy that it
    had not. Raise CniError 101.
    """
    own, shared = _own(plan, admits=admits), _shared(plan)
    families = dict.fromkeys(each.family for each in (*own, *shared))
    with orphans.bound(plan.owner):
        for family in families:
            if list_lost(family):
                new_tables += [] if nft.has_table(family, TABLE) else [family]
                rebuild([family])
        if admits and is_first:
            gates.ensure()
        elements.put(own, plan.owner, shared, lambda: rebuild(families))


def remove(plan: Plan) -> None:
    """Remove the plan's elements, and those of its link and pairs that no other attachment uses.

    `uses.locked` must be held.
    """
    if exists() or nft.has_table(nft.BRIDGE, TABLE):
        elements.remove(lambda: [*_list_owned(plan), *_list_unshared(plan)])


def _own(plan: Plan, *, admits: bool) -> list[Element]:
    return [*(admitted(plan.addresses) if admits else []), *ports(plan.ports)]


def _shared(plan: Plan) -> list[Element]:
    """Return what the plan's link needs: its policies, and the ways in and out that `allow` opens."""
    found = [each for policy in plan.policies if policy in LINK_SETS for each in of_link(policy, plan.link)]
    return [*found, *(allowed(*each) for each in _pairs(plan))]


def _pairs(plan: Plan) -> list[tuple[str, str]]:
    """Return the pairs of links between which connections may be opened because of the plan."""
    if not plan.link:
        return []
    sources = [each for network in plan.allow for each in uses.list_names(uses.attached(network))]
    targets = uses.list_names(uses.allowing(plan.owner.network))
    pairs = [*((each, plan.link) for each in sources), *((plan.link, each) for each in targets)]
    return list(dict.fromkeys(pairs))


def _list_owned(plan: Plan) -> list[Element]:
    return elements.owned(_own(plan, admits=True), owners.tag(plan.owner))


def _list_unshared(plan: Plan) -> list[Element]:
    """Return the existing elements that only this attachment uses."""
    alone = [
        each
        for policy in plan.policies
        if policy in LINK_SETS and not uses.is_used_by_others(Use(policy, plan.link), plan.owner)
        for each in of_link(policy, plan.link)
    ]
    alone += [allowed(*each) for each in _pairs(plan) if not _is_allowed_to_others(*each, plan.owner)]
    return _existing(alone)


def _is_allowed_to_others(source: str, target: str, owner: Owner) -> bool:
    """Return whether other attachments suffice to let one link connect to another."""
    return any(
        uses.is_used_by_others(Use(f"allow/{tag}", target), owner)
        and uses.is_used_by_others(Use(f"networks/{tag}", source), owner)
        for tag in uses.list_names("allow")
        if uses.is_used(Use(f"allow/{tag}", target))
    )


def list_lost(family: int) -> list[str]:
    """Return the chains of a table that are missing, or that lack rules or their hook."""
    wanted = CHAINS[family]
    found = nft.find_chains([(family, TABLE, name) for name in wanted])
    where = f"nftables table {nft.FAMILY_NAMES[family]} {TABLE}"
    return [
        f"chain {name} of {where} does not exist" if chain is None else f"chain {name} of {where} lacks rules"
        for (name, (use, has_hook)), chain in zip(wanted.items(), found, strict=True)
        if chain is None or chain.use != use or chain.has_hook is not has_hook
    ]


def rebuild(families: Iterable[int]) -> None:
    """Make tables whole in one transaction each, then restore the elements of all known links."""
    for family in families:
        nft.run_text(_unhooked(family) + script(family), "set up nftables")
        if family == nft.INET:
            restore_links()


def _unhooked(family: int) -> str:
    """Return the commands that remove chains which lost their hook, so that the script makes them anew."""
    wanted = CHAINS[family]
    found = nft.find_chains([(family, TABLE, name) for name in wanted])
    names = [
        name
        for (name, (_, has_hook)), chain in zip(wanted.items(), found, strict=True)
        if chain and chain.has_hook is not has_hook
    ]
    where = f"{nft.FAMILY_NAMES[family]} {TABLE}"
    return "".join(f"flush chain {where} {name}\ndelete chain {where} {name}\n" for name in names)


def restore_links() -> None:
    """Add the elements of all links that any attachment uses, of networks of every backend."""
    wanted = [
        each for policy in LINK_SETS for link in uses.list_names(policy) for each in of_link(policy, link)
    ]
    for tag in uses.list_names("allow"):
        sources = uses.list_names(f"networks/{tag}")
        targets = uses.list_names(f"allow/{tag}")
        wanted += [allowed(source, target) for source in sources for target in targets]
    elements.put((), _NOBODY, wanted, _refuse)


def _refuse() -> None:
    raise CniError(Code.TRY_AGAIN, "could not write nftables elements: another program deleted their table")


def differences(plan: Plan, *, admits: bool) -> list[str]:
    """Return what is missing of the elements of `apply`, and of what they need."""
    own, shared = _own(plan, admits=admits), _shared(plan)
    missing = [
        each
        for family in dict.fromkeys(each.family for each in (*own, *shared))
        for each in list_lost(family)
    ]
    tag = owners.tag(plan.owner)
    for each, found in zip([*own, *shared], elements.find_all([*own, *shared]), strict=True):
        if found is None:
            missing.append(f"{each.purpose} is not in nftables")
        elif each in own and not found.comment.startswith(tag):
            missing.append(f"{each.purpose} belongs to {owners.shown(found.comment)}")
    if admits:
        for family, table, chain in gates.list_missing():
            where = f"{nft.FAMILY_NAMES[family]} {table} {chain}"
            missing.append(f"nftables chain {where} drops admitted packets by its policy")
    return missing


def remove_owned(owner: Owner) -> None:
    """Remove the elements of an attachment without a record. This reads whole sets."""
    tag = owners.tag(owner)
    elements.remove(lambda: [each for each, _ in _search(tag)])


def remove_invalid(network: str, valid: frozenset[str]) -> None:
    """Remove the elements that `search_network` finds."""
    elements.remove(lambda: [each for each, _ in search_network(network, valid)])


def search_network(network: str, valid: frozenset[str]) -> list[tuple[Element, str]]:
    """Return the elements of a network's attachments whose tags are not in `valid`, with their comments."""
    found = _search(owners.network_tag(network))
    return [each for each in found if owners.tag_of(each[1]) not in valid]


def _search(prefix: str) -> list[tuple[Element, str]]:
    return [
        each
        for family, names in SETS
        if nft.has_table(family, TABLE)
        for name in names
        if name in _OWNED_SETS
        for each in elements.search(family, name, prefix, TABLE)
    ]


def shown(element: Element) -> str:
    """Return an element of an attachment in words: its set, and its address or link."""
    if element.family == nft.BRIDGE:
        return f"{link_of(element)} in set {element.set_name}"
    return f"{ip_address(element.key)} in set {element.set_name}"


def list_links() -> list[tuple[Element, str]]:
    """Return the elements of links, each with the name of its link."""
    if not exists():
        return []
    return [
        (each, link_of(each)) for name in LINK_SETS for each, _ in elements.search(nft.INET, name, "", TABLE)
    ]


def list_unused() -> list[int]:
    """Return the families whose table has no element."""
    return [
        family
        for family, names in SETS
        if nft.has_table(family, TABLE) and all(elements.is_empty(family, name, TABLE) for name in names)
    ]


def remove_links(links: Collection[str]) -> None:
    """Remove the elements of links that no attachment uses."""
    with uses.locked():
        wanted = [
            each
            for policy in LINK_SETS
            for link in links
            if not uses.is_used(Use(policy, link))
            for each in of_link(policy, link)
        ]
        elements.remove(lambda: _existing(wanted))


def _existing(wanted: Sequence[Element]) -> list[Element]:
    return [each for each, found in zip(wanted, elements.find_all(wanted), strict=True) if found]


def remove_unused(family: int) -> None:
    """Remove a table without elements, and the rules in other tables that only it needs."""
    with uses.locked():
        if family in list_unused():
            if family == nft.INET:
                gates.remove(gates.list_present())
            nft.commit_deletions([nft.delete_table(family, TABLE)])

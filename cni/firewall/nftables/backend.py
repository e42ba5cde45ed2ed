"""Render intents as elements of nftables maps and sets, in tables of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import ErrorList
from cni.firewall import nft, owners
from cni.firewall.nft import IPV4, IPV6
from cni.firewall.nftables import base, chains, elements, foreign, records
from cni.firewall.nftables.conditions import check as check_conditions
from cni.firewall.nftables.layout import CONDITIONAL, FAMILIES, SECOND, TABLE, hairpin_set, leaving_set
from cni.firewall.nftables.plan import conditions_of, family_of, plan_forward, plan_gateways, plan_masquerade
from cni.state import files

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from cni.firewall.intents import Masquerade, Owner, PortForward
    from cni.firewall.nftables.elements import Element
    from cni.firewall.nftables.layout import Shared
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpInterface, IpNetwork
    from cni.undo import Undo

_FORWARD = "forward"
_MASQUERADE = "masquerade"


class Nftables:
    """The `Backend` for nftables; see `cni.firewall.intents`."""

    name = "nftables"

    def unusable_because(self) -> str:
        """Tell why nftables cannot work here, "" when it can; a missing permission is told as such."""
        return base.unusable_because()

    def add_forward(self, intent: PortForward, undo: Undo) -> None:
        """Publish ports. Raises CniError 103 naming the container that has one of them."""
        conditions = conditions_of(intent)
        for family, field in ((IPV4, "conditionsV4"), (IPV6, "conditionsV6")):
            check_conditions(conditions.get(family, ()), field)
        conditional, mapped = _split(intent)
        made, second = _add(_FORWARD, intent, mapped, intent.targets, undo)
        undo.add(f"remove nftables chains of {intent.owner.container_id}", chains.remove, intent.owner)
        families = list(dict.fromkeys(map(family_of, intent.targets)))
        # One question for what is of the owner and what shows that all shared rules are there.
        own, shared = chains.names(intent.owner), base.asked(families)
        found = nft.find_chains(TABLE, [*own, *shared])
        chains.remove_found(intent.owner, [name for name, chain in zip(own, found, strict=False) if chain])
        base.make_whole(families, found[len(own) :])
        if conditional:
            base.ensure(_subnets(intent, intent.targets), made)
            chains.add(CONDITIONAL, intent.owner, conditional, conditions)
        if second:
            chains.add(SECOND, intent.owner, second, {})

    def differences_forward(self, intent: PortForward) -> list[str]:
        """Compare with what is in place, by look-ups."""
        conditional, mapped = _split(intent)
        by_rule = {
            (kind, family): chains.list_published(kind, intent.owner, family)
            for kind in chains.KINDS
            for family in FAMILIES
        }
        missing = [
            f"{each.what} is in no rule of nftables chain {CONDITIONAL}"
            for each in conditional
            if each.what not in by_rule[CONDITIONAL, each.family]
        ]
        here = [each for each in mapped if not each.value or each.what not in by_rule[SECOND, each.family]]
        shared = _shared_differences([*conditional, *mapped], intent, intent.targets)
        gateways = [f"{each.what} is in no set of nftables" for each in _missing_gateways(intent)]
        return shared + missing + _element_differences(intent.owner, here) + gateways

    def remove_forward(self, owner: Owner) -> None:
        """Take away whatever was published for the owner, by this suite or by the Go plugins."""
        errors = ErrorList()
        errors.attempt(chains.remove, owner)
        errors.attempt(_remove, _FORWARD, owner)
        errors.attempt(foreign.remove_forward, owner)
        errors.raise_any()

    def add_masquerade(self, intent: Masquerade, undo: Undo) -> None:
        """Masquerade the addresses for what leaves their subnets."""
        _add(_MASQUERADE, intent, plan_masquerade(intent), intent.addresses, undo)
        base.ensure_whole(dict.fromkeys(map(family_of, intent.addresses)))

    def differences_masquerade(self, intent: Masquerade) -> list[str]:
        """Compare with what is in place, by look-ups; what the Go plugins made will do."""
        planned = plan_masquerade(intent)
        # That ports of others are kept from the gateways is not the masquerade's to check.
        shared = _shared_differences(planned, intent._replace(gateways=()), intent.addresses)
        found = shared + _element_differences(intent.owner, planned)
        return [] if found and foreign.has_masquerade(intent) else found

    def remove_masquerade(self, owner: Owner) -> None:
        """Take away the owner's masquerading, made by this suite or by the Go plugins."""
        errors = ErrorList()
        errors.attempt(_remove, _MASQUERADE, owner)
        errors.attempt(foreign.remove_masquerade, owner)
        errors.raise_any()

    def mend(self, targets: Sequence[IpInterface]) -> None:
        """Make again what is missing of the tables of these addresses' families."""
        from cni.firewall.nftables import rebuild

        rebuild.mend(dict.fromkeys(map(family_of, targets)))

    def stale(self, network: str, valid: Collection[Attachment]) -> list[Stale]:
        """Tell what `collect` would remove."""
        from cni.firewall.nftables import stale

        return stale.find(network, owners.tags(network, valid))

    def collect(self, network: str, valid: Collection[Attachment]) -> list[str]:
        """Remove what attachments of the network that are not valid have, and what nobody uses any more."""
        kept = owners.tags(network, valid)
        removed: set[str] = set()
        errors = ErrorList()
        for step in (chains.remove_invalid, foreign.remove_invalid, _remove_invalid_elements):
            errors.attempt(lambda step=step: removed.update(step(network, kept)))
        errors.attempt(records.remove_invalid, network, kept)
        errors.attempt(lambda: base.remove_unused(base.list_shared()))
        errors.raise_any()
        return sorted(map(owners.shown, removed))


def _remove_invalid_elements(network: str, valid: frozenset[str]) -> list[str]:
    from cni.firewall.nftables.stale import list_elements

    removed: list[str] = []

    def invalid() -> list[Element]:
        stale = list_elements(network, valid)
        removed[:] = [told for _, told in stale]
        return [each for each, _ in stale]

    elements.remove(invalid)
    return removed


def _split(intent: PortForward) -> tuple[list[Element], list[Element]]:
    """Give what becomes rules because of conditions, and what becomes elements."""
    planned, conditions = plan_forward(intent), conditions_of(intent)
    conditional = [each for each in planned if each.value and each.family in conditions]
    return conditional, [each for each in planned if each not in conditional]


def _subnets(intent: PortForward | Masquerade, targets: Sequence[IpInterface]) -> list[IpNetwork]:
    return list(dict.fromkeys(each.network for each in (*targets, *intent.gateways)))


def _missing_gateways(intent: PortForward) -> list[Element]:
    planned = plan_gateways(intent.gateways)
    return [each for each, found in zip(planned, elements.find_all(planned), strict=True) if found is None]


def _add(
    kind: str,
    intent: PortForward | Masquerade,
    planned: Sequence[Element],
    targets: Sequence[IpInterface],
    undo: Undo,
) -> tuple[list[Shared], list[Element]]:
    """Replace what the owner of an intent has of a kind.

    Gives the list of shared things that had to be made, which may be added to and is undone, and the
    elements that another attachment of the container has.
    """
    owner = intent.owner
    made: list[Shared] = []
    folders: list[Path] = []
    old = records.read(kind, owner) or []
    undo.add(f"remove nftables elements of {owner.container_id}", _take_back, kind, owner, old, made, folders)
    records.write(kind, owner, [*old, *planned], folders)
    gateways = plan_gateways(intent.gateways) if planned else []
    second = elements.replace(
        old, planned, owner, lambda: base.ensure(_subnets(intent, targets), made), gateways
    )
    if old:
        records.write(kind, owner, planned, folders)
    return made, second


def _take_back(
    kind: str, owner: Owner, old: Sequence[Element], made: Sequence[Shared], folders: list[Path]
) -> None:
    errors = ErrorList()
    if old:
        errors.attempt(_restore, kind, owner, old)
    else:
        errors.attempt(_remove, kind, owner)
    if made:
        errors.attempt(base.remove_unused, made)
    files.remove_directories(folders)
    errors.raise_any()


def _restore(kind: str, owner: Owner, old: Sequence[Element]) -> None:
    """Give an owner the elements back that it had before a second ADD."""
    present = records.read(kind, owner) or []
    elements.replace(present, old, owner, lambda: None)
    records.write(kind, owner, old, [])


def _remove(kind: str, owner: Owner) -> None:
    """Delete an owner's elements of a kind, then the record of them."""
    tag = owners.tag(owner)

    def candidates() -> list[Element]:
        recorded = records.read(kind, owner)
        if recorded is not None:
            return elements.owned(recorded, tag)
        if not records.exists(kind, owner) and base.has_complete_records():
            return []
        return [
            each
            for family in FAMILIES
            for name in elements.list_sets(family)
            if name.startswith("leaving-") is (kind == _MASQUERADE)
            for each, _ in elements.search(family, name, tag)
        ]

    elements.remove(candidates)
    records.remove(kind, owner)


def _shared_differences(
    planned: Sequence[Element], intent: PortForward | Masquerade, targets: Sequence[IpInterface]
) -> list[str]:
    """Compare the shared things that elements need: none, a family's, or those of a subnet too."""
    used = {(each.family, each.set_name) for each in planned}
    missing = []
    for family in dict.fromkeys(each.family for each in planned):
        subnets = dict.fromkeys(str(each.network) for each in targets if family_of(each) == family)
        needed = [
            subnet
            for subnet in subnets
            if used & {(family, hairpin_set(subnet)), (family, leaving_set(subnet))}
        ]
        missing += base.differences(family, needed, is_guarded=bool(intent.gateways))
    return missing


def _element_differences(owner: Owner, planned: Sequence[Element]) -> list[str]:
    tag = owners.tag(owner)
    missing = []
    for element in planned:
        found = elements.find(element)
        if found is None:
            missing.append(f"{element.what} is not in nftables")
        elif not found.comment.startswith(tag):
            missing.append(f"{element.what} belongs to {owners.shown(found.comment)}")
        elif found.value != element.value:
            missing.append(f"{element.what} leads to another address")
    return missing

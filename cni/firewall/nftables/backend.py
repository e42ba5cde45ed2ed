"""The backend nftables: it applies, compares and removes intents of any kind.

Functions import what only GC needs: a cold start pays for each module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall import nft, owners
from cni.firewall.intents import KINDS, Backend, Owner, checked_part, doing
from cni.firewall.nftables import base, chains, elements, foreign, records
from cni.firewall.nftables.layout import FAMILIES, SECOND, hairpin_set, leaving_set
from cni.firewall.nftables.plan import family_of
from cni.state import files

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from cni.firewall.intents import Intent, Kind
    from cni.firewall.nftables.elements import Element
    from cni.firewall.nftables.layout import Shared
    from cni.firewall.nftables.plan import Plan, Rendering
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpAddress
    from cni.undo import Undo


class Nftables(Backend):
    """The `Backend` for nftables."""

    name = "nftables"

    def unusable_because(self) -> str:
        """Return why nftables cannot work here, "" if it can. A missing permission is named."""
        return base.unusable_because()

    def apply(self, intent: Intent, undo: Undo) -> None:
        """Make what the intent needs. Raise CniError 103, naming the container that has one of its ports."""
        rendering, owner = _rendering(intent.kind), intent.owner
        rendering.validate(intent)
        plan = rendering.plan(intent)
        made, second = _put_elements(intent, plan, undo) if rendering.has_set else ([], [])
        own = rendering.own(owner)
        if own:
            undo.add(f"remove nftables chains of {owner.container_id}", chains.remove, own)
        # One question for the owner's chains and for those that show whether shared rules are missing.
        found = nft.find_chains([*(each.place for each in own), *base.asked(plan.families)])
        chains.remove_found([each for each, chain in zip(own, found, strict=False) if chain])
        base.make_whole(plan.families, found[len(own) :])
        if plan.script:
            if plan.subnets:
                base.ensure(plan.subnets, made)
            else:
                missing = chains.list_missing_parents(own)
                undo.add("remove unused nftables chains", chains.remove_with_parents, own, missing)
            chains.run(plan.script, owner, doing(intent))
        if second:
            chains.run(chains.script(SECOND, owner, second, {}, plan.elements), owner, doing(intent))

    def differences(self, intent: Intent) -> list[str]:
        """Compare by look-ups. What the Go plugins made of it suffices."""
        checked = checked_part(intent)
        rendering, owner = _rendering(checked.kind), checked.owner
        plan = rendering.plan(checked)
        comments = {each: chains.list_comments(each) for each in rendering.own(owner)}
        # Ports of the same container on another network have the key; these are rules.
        second = {
            (each.family, comment)
            for each, listed in comments.items()
            for comment in listed
            if each.parent == SECOND
        }
        ruled = [each for each in plan.elements if each.value and (each.family, each.purpose) in second]
        mapped = [each for each in plan.elements if each not in ruled and not any(map(each.restricts, ruled))]
        found = [
            *_shared_differences(plan),
            *(
                f"{comment} is in no rule of nftables chain {own.parent}"
                for own, comment in plan.rules
                if comment not in comments[own]
            ),
            *_element_differences(owner, mapped),
            *(f"{each.purpose} is in no set of nftables" for each in _missing(plan.gateways)),
            *rendering.compare(checked),
        ]
        return [] if found and rendering.foreign.covers(checked) else found

    def may_have(self, intent: Intent) -> bool:
        """Return whether nftables has this kind: `differences` starts no program either."""
        return intent.kind.nftables is not None

    def remove(self, owner: Owner, kind: Kind, addresses: Sequence[IpAddress] = ()) -> None:  # noqa: ARG002 - a link has its own
        """Remove the owner's rules of a kind, made by this suite or by the Go plugins."""
        if kind.nftables is None:
            return
        rendering = kind.nftables()
        errors = ErrorList()
        if own := rendering.own(owner):
            errors.attempt(chains.remove, own)
        if rendering.has_set:
            errors.attempt(_remove_elements, kind, owner)
        errors.attempt(rendering.foreign.remove, owner)
        errors.raise_any()

    def installed(self, owners: Sequence[Owner], kind: Kind, versions: Collection[int]) -> list[Owner]:  # noqa: ARG002 - records have them
        """Return those who have rules of a kind, by their records and the names of their chains."""
        if kind.nftables is None:
            return []
        rendering = kind.nftables()
        try:
            sound = {family for family in FAMILIES if not base.differences(family, [], is_guarded=False)}
            return [owner for owner in owners if _is_installed(owner, kind, rendering, sound)]
        except CniError:
            # The kernel does not have nftables.
            return []

    def rebuild(self, intent: Intent) -> None:
        """Make missing rules of the tables of the intent's families."""
        base.rebuild(nft.FAMILIES[version] for version in intent.versions)

    def stale(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[Stale]:
        """Return what `collect` removes."""
        from cni.firewall.nftables import stale

        return stale.find(network, owners.tags(network, valid), _parents(kinds))

    def collect(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[str]:
        """Remove what attachments of the network that are not valid have, and what is unused then."""
        kept = owners.tags(network, valid)
        removed: set[str] = set()
        errors = ErrorList()
        errors.attempt(lambda: removed.update(chains.remove_invalid(network, kept, _parents(kinds))))
        for step in (foreign.remove_invalid, _remove_invalid_elements):
            errors.attempt(lambda step=step: removed.update(step(network, kept)))
        errors.attempt(records.remove_invalid, network, kept)
        errors.attempt(lambda: base.remove_unused(base.list_shared()))
        errors.raise_any()
        return sorted(map(owners.shown, removed))


def _rendering(kind: Kind) -> Rendering:
    if kind.nftables is None:
        raise CniError(Code.NOT_AVAILABLE, f"the backend nftables has no {kind.noun}", "use iptables")
    return kind.nftables()


def _parents(kinds: Sequence[Kind]) -> list[nft.Place]:
    """Return the chains that lead to owners' chains of these kinds."""
    owned = [own for kind in kinds if kind.nftables for own in kind.nftables().own(Owner("", "", ""))]
    return list(dict.fromkeys((each.family, each.table, each.parent) for each in owned))


def _remove_invalid_elements(network: str, valid: frozenset[str]) -> list[str]:
    from cni.firewall.nftables.stale import list_elements

    removed: list[str] = []

    def invalid() -> list[Element]:
        stale = list_elements(network, valid)
        removed[:] = [comment for _, comment in stale]
        return [each for each, _ in stale]

    elements.remove(invalid)
    return removed


def _missing(planned: Sequence[Element]) -> list[Element]:
    return [each for each, found in zip(planned, elements.find_all(planned), strict=True) if found is None]


def _put_elements(intent: Intent, plan: Plan, undo: Undo) -> tuple[list[Shared], list[Element]]:
    """Replace the owner's elements of the intent's kind.

    Return the shared things that had to be made, a list that may grow and that `undo` removes again, and the
    elements whose keys another attachment of the container has.
    """
    owner, kind = intent.owner, intent.kind.name
    made: list[Shared] = []
    folders: list[Path] = []
    old = records.read(kind, owner) or []
    undo.add(
        f"remove nftables elements of {owner.container_id}", _restore, intent.kind, owner, old, made, folders
    )
    records.write(kind, owner, [*old, *plan.elements], folders)
    # Nothing of the intent remains for the gateways if all its ports are rules.
    gateways = plan.gateways if plan.elements else []
    second = elements.replace(old, plan.elements, owner, lambda: base.ensure(plan.subnets, made), gateways)
    if old:
        records.write(kind, owner, plan.elements, folders)
    return made, second


def _restore(
    kind: Kind, owner: Owner, old: Sequence[Element], created: Sequence[Shared], folders: list[Path]
) -> None:
    """Restore the elements that an owner had before an ADD."""
    errors = ErrorList()
    if old:
        errors.attempt(_put_back, kind.name, owner, old)
    else:
        errors.attempt(_remove_elements, kind, owner)
    if created:
        errors.attempt(base.remove_unused, created)
    files.remove_directories(folders)
    errors.raise_any()


def _put_back(kind: str, owner: Owner, old: Sequence[Element]) -> None:
    present = records.read(kind, owner) or []
    elements.replace(present, old, owner, lambda: None)
    records.write(kind, owner, old, [])


def _remove_elements(kind: Kind, owner: Owner) -> None:
    """Delete an owner's elements of a kind, then the record of them."""
    tag = owners.tag(owner)
    has_set = kind.nftables().has_set if kind.nftables else None

    def candidates() -> list[Element]:
        recorded = records.read(kind.name, owner)
        if recorded is not None:
            return elements.owned(recorded, tag)
        if not records.exists(kind.name, owner) and base.has_complete_records():
            return []
        return [
            each
            for family in FAMILIES
            for name in elements.list_sets(family)
            if has_set and has_set(name)
            for each, _ in elements.search(family, name, tag)
        ]

    elements.remove(candidates)
    records.remove(kind.name, owner)


def _is_installed(owner: Owner, kind: Kind, rendering: Rendering, sound: Collection[int]) -> bool:
    if recorded := records.read(kind.name, owner):
        return all(each.family in sound and elements.find(each) for each in recorded)
    return rendering.foreign.has_rules(owner) or any(map(chains.list_comments, rendering.own(owner)))


def _shared_differences(plan: Plan) -> list[str]:
    """Compare the shared things that elements need: none, a family's, or those of a subnet too."""
    planned = [*plan.conditional, *plan.elements]
    used = {(each.family, each.set_name) for each in planned}
    missing = []
    for family in dict.fromkeys(each.family for each in planned):
        subnets = dict.fromkeys(
            str(each) for each in plan.subnets if family_of(each.network_address) == family
        )
        needed = [
            subnet
            for subnet in subnets
            if used & {(family, hairpin_set(subnet)), (family, leaving_set(subnet))}
        ]
        missing += base.differences(family, needed, is_guarded=bool(plan.gateways))
    return missing


def _element_differences(owner: Owner, planned: Sequence[Element]) -> list[str]:
    tag = owners.tag(owner)
    missing = []
    for element in planned:
        found = elements.find(element)
        if found is None:
            missing.append(f"{element.purpose} is not in nftables")
        elif not found.comment.startswith(tag):
            missing.append(f"{element.purpose} belongs to {owners.shown(found.comment)}")
        elif found.value != element.value:
            missing.append(f"{element.purpose} leads to another address")
        elif found.end != element.end:
            missing.append(f"{element.purpose} is a network of another size in nftables")
    return missing

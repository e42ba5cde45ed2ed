"""The parts that verbs share: records of attachments, the choice of the backend, the steps of ADD and DEL.

An ADD saves the record before its first change, so that DEL and GC need neither prevResult nor namespace.
Functions import the backend that is used: a cold start pays for each module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, ErrorList
from cni.firewall import orphans, select
from cni.kernel import dbus
from cni.kernel.netns import is_gone, open_netns
from cni.state import attachments
from cni_firewall import uses
from cni_firewall.conf import FIREWALLD, IPTABLES, NFTABLES
from cni_firewall.plan import GO_ISOLATED, GO_SAME_BRIDGE, KNOWN, TABLE, parse_values
from cni_firewall.uses import Use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.firewall.intents import Owner
    from cni.undo import Undo
    from cni_firewall.conf import FirewallConf
    from cni_firewall.plan import Plan

PLUGIN = "firewall"
PURPOSE = "firewall"
_GO_POLICIES = (GO_SAME_BRIDGE, GO_ISOLATED)


class Choice(NamedTuple):
    """How an attachment is admitted: the backend, and what iptables and firewalld need."""

    backend: str
    admin_chain: str = ""
    zone: str = ""
    bus: str = ""


class Saved(NamedTuple):
    """The record of an attachment."""

    plan: Plan
    choice: Choice


def choose(conf: FirewallConf, env: Mapping[str, str]) -> Choice:
    """Return the backend that the configuration names, else firewalld if it runs, else iptables or nftables.

    An ADD that fails with iptables looks for the reason, and may use nftables then. Raise CniError 50 if
    neither is installed.
    """
    bus = dbus.find_bus(env)
    return Choice(conf.known_backend or _find_backend(bus), conf.admin_chain, conf.zone, bus)


def _find_backend(bus: str) -> str:
    if dbus.may_exist(bus):
        from cni_firewall import firewalld

        if firewalld.is_running(bus):
            return FIREWALLD
    from cni.firewall.iptables.backend import Iptables

    return IPTABLES if Iptables().is_installed() else select.choose(None, PURPOSE).name


def _key(owner: Owner) -> attachments.Key:
    return attachments.Key(PLUGIN, *owner)


def load(owner: Owner) -> Saved | None:
    """Return the record of an attachment, None without one."""
    record = attachments.load(_key(owner))
    return read(owner, record) if record else None


def read(owner: Owner, record: attachments.Record) -> Saved:
    """Return the content of a record."""
    texts = {key: value for key, value in record.values.items() if isinstance(value, str)}
    choice = Choice(*(texts.get(name, "") for name in Choice._fields))
    return Saved(parse_values(owner, record.values), choice)


def save(plan: Plan, choice: Choice, netns: str, undo: Undo) -> None:
    """Save the record of an attachment before it is changed."""
    key = _key(plan.owner)
    undo.add("remove the record", attachments.drop, key)
    with open_netns(netns) as ns:
        attachments.save(key, {**plan.to_values(), **choice._asdict()}, ns)


def apply(plan: Plan, choice: Choice, undo: Undo) -> None:
    """Admit the addresses and isolate the link."""
    if choice.backend == IPTABLES:
        from cni_firewall import iptables

        iptables.admit(plan, choice.admin_chain, undo)
    elif choice.backend == FIREWALLD:
        from cni_firewall import firewalld

        firewalld.admit(plan.addresses, choice.zone, choice.bus, undo)
    if not plan.link and choice.backend != NFTABLES:
        return
    new = NewlyShared([], [])
    # Inverses run without the lock, and take it.
    undo.add("remove unused tables and chains", _remove_newly_shared, new)
    undo.add("release what attachments share", _release, plan)
    with uses.locked():
        _apply_shared(plan, choice, new)


class NewlyShared(NamedTuple):
    """Shared objects that an ADD made: families of tables, IP versions of chains of isolation."""

    tables: list[int]
    chains: list[int]


def _apply_shared(plan: Plan, choice: Choice, new: NewlyShared) -> None:
    first = [each for each in list_uses(plan) if uses.hold(each, plan.owner)]
    admits = choice.backend == NFTABLES
    if admits or _is_in_nftables(plan):
        from cni_firewall import nftables

        is_first = any(each.kind == KNOWN for each in first)
        nftables.apply(plan, new.tables, admits=admits, is_first=is_first)
    for policy in _GO_POLICIES:
        if policy in plan.policies:
            _isolate_as_go(plan, policy, first, new.chains)


def _remove_newly_shared(new: NewlyShared) -> None:
    errors = ErrorList()
    if new.tables:
        from cni_firewall import nftables

        for family in new.tables:
            errors.attempt(nftables.remove_unused, family)
    if new.chains:
        from cni_firewall import iptables

        for version in new.chains:
            errors.attempt(iptables.remove_unused_isolation, version)
    errors.raise_any()


def _is_in_nftables(plan: Plan) -> bool:
    """Return whether nftables isolates the plan's link, or a network that must know it."""
    from cni.firewall import nft

    own = {*plan.policies} - {KNOWN, *_GO_POLICIES}
    # A host on which nothing is isolated needs no table.
    return bool(own or plan.allow) or (bool(plan.link) and nft.has_table(nft.INET, TABLE))


def _isolate_as_go(plan: Plan, policy: str, first: list[Use], new_chains: list[int]) -> None:
    from cni_firewall import iptables

    missing = [version for version in plan.versions if not iptables.has_isolation(version)]
    new_chains += missing
    unused = [version for version in plan.versions if _of_version(policy, version, plan.link) in first]
    if versions := sorted({*missing, *unused}):
        iptables.isolate(plan, policy, versions)


def _of_version(policy: str, version: int, link: str) -> Use:
    return Use(f"{policy}-ipv{version}", link)


def list_uses(plan: Plan) -> list[Use]:
    """Return the shared rules that an attachment uses."""
    if not plan.link:
        return []
    found = [Use(each, plan.link) for each in plan.policies if each not in _GO_POLICIES]
    found += [
        _of_version(policy, version, plan.link)
        for policy in plan.policies
        if policy in _GO_POLICIES
        for version in plan.versions
    ]
    found.append(Use(uses.attached(plan.owner.network), plan.link))
    return [*found, *(Use(uses.allowing(each), plan.link) for each in plan.allow)]


def remove(plan: Plan, choice: Choice) -> None:
    """Remove all of an attachment, of all backends, then its record, which remains if a rule may remain."""
    _remove(plan, choice, is_in_zone=choice.backend == FIREWALLD)
    attachments.drop(_key(plan.owner))


def remove_unrecorded(plan: Plan, choice: Choice, *, is_firewalld_possible: bool) -> None:
    """Remove all of an attachment of the Go plugin, or of one whose record is lost."""
    _remove(plan, choice, is_in_zone=is_firewalld_possible)
    from cni.firewall import nft

    if nft.has_table(nft.INET, TABLE):
        from cni_firewall import nftables

        nftables.remove_owned(plan.owner)
    # A process that was killed in an ADD may have left an unfinished one.
    attachments.drop(_key(plan.owner))


def _remove(plan: Plan, choice: Choice, *, is_in_zone: bool) -> None:
    from cni_firewall import iptables

    errors = ErrorList()
    errors.attempt(orphans.wait, plan.owner)
    errors.attempt(iptables.withdraw, plan.addresses)
    if is_in_zone:
        errors.attempt(_leave_zone, plan, choice)
    errors.attempt(_release, plan)
    errors.raise_any()


def _leave_zone(plan: Plan, choice: Choice) -> None:
    if plan.addresses and dbus.may_exist(choice.bus):
        from cni_firewall import firewalld

        firewalld.withdraw(plan.addresses, choice.zone, choice.bus)


def _release(plan: Plan) -> None:
    from cni_firewall import nftables

    if plan.link or nftables.exists():
        with uses.locked():
            _release_locked(plan)


def _release_locked(plan: Plan) -> None:
    from cni_firewall import nftables

    nftables.remove(plan)
    held = list_uses(plan)
    go = [each for each in held if each.kind.startswith(_GO_POLICIES)]
    if go and not any(uses.is_used_by_others(each, plan.owner) for each in _all_go(plan.link)):
        from cni_firewall import iptables
        from cni_firewall.neighbours import has_others

        # Containers of the Go plugin leave no trace of their policy but these rules.
        if not has_others(plan.link, plan.owner):
            iptables.release(plan.link)
    for each in held:
        uses.release(each, plan.owner)


def _all_go(link: str) -> Iterator[Use]:
    for policy in _GO_POLICIES:
        for version in (4, 6):
            yield _of_version(policy, version, link)


def is_dead(record: attachments.Record) -> bool:
    """Return whether the namespace of an attachment is gone."""
    return bool(record.netns) and is_gone(record.netns)


def require_backend(choice: Choice) -> None:
    """Raise CniError 50 if firewalld is asked for and does not run."""
    if choice.backend != FIREWALLD:
        return
    from cni_firewall import firewalld

    if not firewalld.is_running(choice.bus):
        raise CniError(
            Code.NOT_AVAILABLE,
            "the firewall backend firewalld is not usable here: firewalld does not run",
            'Start firewalld, or set "backend" to "iptables" or "nftables".',
        )

"""Hear that rules, links, addresses or routes of containers disappear from the host: for `pycni watch`.

All of it is heard without polling, except what a program does to legacy iptables without its lock.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall.losses import LegacyTables, Transactions
from cni.kernel import addr, announcements, host_changes, link
from cni.kernel.announcements import Listener
from cni.kernel.host_changes import ADDRESS_GONE, FORWARDING_OFF, LINK_DOWN, LINK_GONE, PORT_GONE, ROUTE_GONE
from cni.kernel.inotify import ClosedFile
from cni.kernel.rtnetlink import Netlink
from cni.runtime.belongings import Loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.losses import Deletion
    from cni.kernel.host_changes import Change
    from cni.kernel.link import Link
    from cni.runtime.belongings import Register

# The lock of all programs of legacy iptables. The first of them creates the file with this mode.
_XTABLES_LOCK, _LOCK_MODE = "/run/xtables.lock", 0o600
_LEGACY_INTERVAL_S = 30.0
_GROUPS = (
    *announcements.LINKS,
    *announcements.ADDRESSES,
    *announcements.ROUTES,
    *announcements.FORWARDING,
)
_DROPPED = "the kernel dropped announcements, because too many came at once"


class Hearing:
    """Listens from its creation on. Raise CniError."""

    def __init__(self) -> None:
        self._links = Listener(announcements.ROUTE, _GROUPS)
        self._rules = Listener(announcements.NETFILTER, announcements.NFTABLES)
        self._lock = _watch_xtables_lock()
        self._legacy = LegacyTables()
        self._legacy_due_s = self._next_look()
        self._transactions = Transactions()
        self._changes: dict[Change, None] = {}
        self._deletions: list[Deletion] = []
        self._has_missed = self._has_legacy_changed = False

    @property
    def fds(self) -> list[int]:
        """Return the descriptors that become readable when something is announced."""
        return [each.fileno() for each in (self._links, self._rules, self._lock) if each]

    @property
    def due_s(self) -> float | None:
        """Return the monotonic time to call `read` even if nothing is announced, None for never."""
        return self._legacy_due_s

    def read(self) -> bool:
        """Read what was announced. Return whether anything of it may matter: then call `losses`."""
        heard = self._links.read()
        for message in heard.messages:
            self._changes |= dict.fromkeys(host_changes.read(message))
        rules = self._rules.read()
        if not rules.is_whole:
            self._transactions.forget()
        self._deletions += self._transactions.add(rules.messages)
        self._has_missed |= not (heard.is_whole and rules.is_whole)
        self._has_legacy_changed |= self._lock is not None and self._lock.read()
        if self._legacy_due_s is not None and time.monotonic() >= self._legacy_due_s:
            self._has_legacy_changed |= self._legacy.has_changed_size()
            self._legacy_due_s = self._next_look()
        return bool(self._changes or self._deletions or self._has_missed or self._has_legacy_changed)

    def losses(self, register: Register) -> Iterator[Loss]:
        """Yield what attachments have lost since the last call and still lack. Raise CniError."""
        deletions, self._deletions = self._deletions, []
        changes, self._changes = self._changes, {}
        if self._has_legacy_changed:
            self._has_legacy_changed = False
            deletions += self._legacy.read()
            self._legacy_due_s = self._next_look()
        if self._has_missed:
            self._has_missed = False
            yield Loss(_DROPPED)
        for text, payloads in deletions:
            owners = register.needing_rules(payloads) if payloads else None
            if owners is None or owners:
                yield Loss(text, owners)
        # The routes of an address go with it.
        without_address = {each.link_index for each in changes if each.kind == ADDRESS_GONE}
        kept = [each for each in changes if each.kind != ROUTE_GONE or each.link_index not in without_address]
        if kept:
            with Netlink() as host:
                for each in kept:
                    yield from _confirm(host, register, each)

    def _next_look(self) -> float | None:
        """Return when to measure legacy tables again: only if there are any."""
        return time.monotonic() + _LEGACY_INTERVAL_S if self._legacy.are_loaded else None


def _watch_xtables_lock() -> ClosedFile | None:
    # Where the file cannot be made or watched, legacy tables are measured at intervals all the same.
    with suppress(OSError, CniError):
        os.close(os.open(_XTABLES_LOCK, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _LOCK_MODE))
        return ClosedFile(_XTABLES_LOCK)
    return None


def _confirm(host: Netlink, register: Register, change: Change) -> Iterator[Loss]:
    """Yield the loss, if attachments need what is gone and if it is still gone."""
    if change.kind == FORWARDING_OFF:
        yield Loss("forwarding was switched off")
        return
    if change.kind in {LINK_GONE, LINK_DOWN, PORT_GONE}:
        name, present = change.name, link.find(host, change.name)
    else:
        present = link.find_by_index(host, change.link_index)
        name = present.name if present else ""
    owners = register.needing_link(name)
    if change.kind == ADDRESS_GONE and change.address and present and owners == frozenset():
        owners = register.needing_address(change.address.packed)
    if owners != frozenset() and (text := _describe(host, change, name, present)):
        yield Loss(text, owners)


def _describe(host: Netlink, change: Change, name: str, present: Link | None) -> str:
    """Return what is missing, "" if it is there again, or if it was announced with its link."""
    if present is None:
        return f"link {name} was deleted" if change.kind == LINK_GONE else ""
    if change.kind == LINK_DOWN and not present.is_up:
        return f"link {name} was set down"
    if change.kind == PORT_GONE and not present.master:
        return f"link {name} was taken from its bridge"
    # The kernel removes these by itself, as when a link loses its carrier.
    if change.address is None or change.address.is_link_local or change.address.is_multicast:
        return ""
    if change.kind == ROUTE_GONE:
        return f"a route to {change.address} through {name} was deleted"
    addresses = {each.address.ip for each in addr.list_addrs(host, change.link_index)}
    return "" if change.address in addresses else f"address {change.address} of {name} was deleted"

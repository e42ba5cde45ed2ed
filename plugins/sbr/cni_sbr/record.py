"""The record of an ADD, and how DEL, GC and an ADD that fails take back what it has changed.

The record is bound to the container's namespace, and saved before the first change. A route is saved as the
kernel shows it: so it comes back with its origin, scope, source and metrics.
"""

from __future__ import annotations

import errno
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.conf import Bool, Int, Model, Str, read
from cni.errors import CniError
from cni.kernel import link, netns, route
from cni.log import note
from cni.state import attachments
from cni_sbr import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.kernel.netns import Netns
    from cni.kernel.route import KernelRoute
    from cni.kernel.rtnetlink import Message, Netlink
    from cni.request import Attachment

NAME = "sbr"
_IS_SO_ALREADY = {errno.EEXIST, errno.ESRCH, errno.ENODEV}


class Change(Model):
    """The changes of an ADD in a namespace.

    `index` is the link's. `rules` has the table of each address. The tables are the plugin's own unless they
    are `configured`. `moved` are the routes that leave the main table, and `hints` those that come into it;
    both are messages of netlink in hexadecimal digits.
    """

    index: Int
    rules: dict[Str, Int]
    configured: Bool = False
    moved: tuple[Str, ...] = ()
    hints: tuple[Str, ...] = ()

    def list_moved(self) -> list[KernelRoute]:
        """Return the moved routes without damaged ones, in the order in which they can be added."""
        routes = sorted(_decode(self.moved), key=lambda each: each.route.gw is not None)
        return [each for each in routes if each.link_index == self.index]


def key_of(network: str, attachment: Attachment) -> attachments.Key:
    """Return the key of the record of an attachment."""
    return attachments.Key(NAME, network, *attachment)


def save(key: attachments.Key, change: Change, ns: Netns) -> None:
    """Save what an ADD is about to change."""
    attachments.save(key, change.model_dump(by_alias=True), ns)


def load(key: attachments.Key, ns: Netns) -> Change | None:
    """Return what ADD has changed in this namespace; None if there is no record, or if it is damaged."""
    return _change_of(attachments.load(key), ns)


def take_back_at(path: str, key: attachments.Key) -> None:
    """Take back what a record says in the namespace at `path`, if it is there, and drop the record."""
    _take_back(attachments.load(key), path)
    attachments.drop(key)


def collect(record: attachments.Record) -> None:
    """Take back what a stale record says in its own namespace, if it is there, and remove the record."""
    _take_back(record, record.netns)
    attachments.remove(record)


def _take_back(record: attachments.Record | None, path: str) -> None:
    ns = netns.find(path if record else "")
    if ns is not None:
        with ns:
            if change := _change_of(record, ns):
                with tables.opened(ns, removes=True) as nl:
                    take_back(nl, change)


def _change_of(record: attachments.Record | None, ns: Netns) -> Change | None:
    if record is None or not record.is_of(ns):
        return None
    try:
        return read(Change, dict(record.values))
    except CniError as error:
        note(f"{NAME}: ignoring {record.path}: {error}")
        return None


def take_back(nl: Netlink, change: Change) -> None:
    """Restore the main table, then remove rules and their tables. Log what cannot be restored."""
    own = link.find_by_index(nl, change.index)
    if own:
        hints = [route.remove_exactly(own.name, each.encoded) for each in _decode(change.hints)]
        moved = [route.again(own.name, each.encoded) for each in change.list_moved()]
        _attempt(nl, [*hints, *moved])
    for network, table in change.rules.items():
        tables.remove_rules(nl, [ip_network(network)], table)
    if own and not change.configured:
        filled = set(change.rules.values())
        listed = [each for each in route.list_all(nl, own.index) if each.route.table in filled]
        _attempt(nl, [route.remove_exactly(own.name, each.encoded) for each in listed if each.encoded])


def _attempt(nl: Netlink, messages: Sequence[Message]) -> None:
    for refusal in filter(None, nl.attempt(messages)):
        if refusal.errno not in _IS_SO_ALREADY:
            note(f"{NAME}: {refusal}")


def _decode(digits: Sequence[str]) -> Iterator[KernelRoute]:
    for each in digits:
        try:
            decoded = route.decode(bytes.fromhex(each))
        except ValueError:
            decoded = None
        if decoded:
            yield decoded

"""GC: withdraw the names of attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.dns import records
from cni.operations.garbage import Removal, Stale
from cni_dnsname import admission, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_dnsname.conf import DnsnameConf

_NO_NAMES = "the network has no names"


def finders(conf: DnsnameConf, request: Request) -> list[Finder]:
    """Return the finders: records to remove, then rules of a network without any."""
    return [partial(_find, conf.name, request.required_valid()), partial(_find_rules, conf.name)]


def _find(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for path, record in records.list_stale(network, valid):
        name = record.names[0] if record else path
        owner = (record.key.container_id, record.key.ifname) if record else ("", "")
        yield Removal((Stale("name", name, network, *owner),), partial(_remove, network, path))


def _remove(network: str, path: str) -> None:
    records.remove(path)
    publish.look()
    publish.withdraw_rules(network)


def _find_rules(network: str) -> Iterator[Removal]:
    if left := admission.list_left(network):
        things = tuple(Stale("rules", f"for queries in {each}", network, reason=_NO_NAMES) for each in left)
        yield Removal(things, partial(publish.withdraw_rules, network))

"""GC: take back what attachments have that are no longer valid, and drop their records."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.operations.garbage import Removal, Stale
from cni.state import attachments
from cni_sbr import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_sbr.conf import SbrConf


def finders(conf: SbrConf, request: Request) -> list[Finder]:
    """Return the finder of records."""
    return [partial(_find_records, conf.name, request.required_valid())]


def _find_records(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for each in attachments.list_stale(record.NAME, network, valid):
        thing = Stale("record", each.path, network, each.container_id, each.ifname)
        yield Removal((thing,), partial(record.collect, each))

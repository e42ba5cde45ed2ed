"""GC: restore the values of attachments that are no longer valid, and drop their records."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.operations.garbage import Removal, Stale
from cni.state import attachments
from cni_tuning import backup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_tuning.conf import TuningConf


def finders(conf: TuningConf, request: Request) -> list[Finder]:
    """Return the finder of records. Files of the Go plugin name no network, and stay."""
    return [partial(_find_records, conf.name, request.required_valid())]


def _find_records(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for record in attachments.list_stale(backup.NAME, network, valid):
        thing = Stale("record", record.path, network, record.container_id, record.ifname)
        yield Removal((thing,), partial(_collect, record))


def _collect(record: attachments.Record) -> None:
    with backup.open_if_there(record.netns) as sides:
        if sides:
            backup.restore_record(record, sides)
    attachments.remove(record)

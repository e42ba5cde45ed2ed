"""GC: release and drop the leases of attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import ErrorList
from cni.operations.garbage import Removal, Stale
from cni.state import attachments
from cni_dhcp import records
from cni_dhcp.delete import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni.state.attachments import Record
    from cni_dhcp.conf import DhcpConf


def finders(conf: DhcpConf, request: Request) -> list[Finder]:
    """Return the finder of leases to remove."""
    return [partial(_find, conf.name, request.required_valid())]


def _find(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for record in attachments.list_stale(records.PLUGIN, network, valid):
        address = record.values.get("address", "")
        thing = Stale("lease", str(address or record.path), network, record.container_id, record.ifname)
        yield Removal((thing,), partial(_remove, record))


def _remove(record: Record) -> None:
    errors = ErrorList()
    errors.attempt(release, record)
    errors.attempt(records.remove, record)
    errors.raise_any()

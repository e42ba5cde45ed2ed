"""GC: remove the leases of attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import ErrorList
from cni.ipam.leases import is_unfinished
from cni.operations.garbage import Removal, Stale
from cni_host_local_ipam.files import open_leases

if TYPE_CHECKING:
    from cni.ipam.leases import Lease, Leases
    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_host_local_ipam.conf import HostLocalConf


def finders(conf: HostLocalConf, request: Request) -> list[Finder]:
    """Return the finder of leases to remove."""
    return [partial(_find, open_leases(conf), conf.name, request.required_valid())]


def _find(leases: Leases, network: str, valid: frozenset[Attachment]) -> list[Removal]:
    """Find leases of invalid attachments, leases without an owner, and files that crashes left."""
    stale = _list_stale(leases, valid) if leases.exists() else []
    things = tuple(
        Stale("lease", each.path, network, each.container_id, each.ifname, _reason(each)) for each in stale
    )
    return [Removal(things, partial(_remove_stale, leases, valid))] if things else []


def _reason(lease: Lease) -> str:
    if is_unfinished(lease):
        return "a crash left it unfinished"
    return "it is empty: nobody holds it" if lease.is_empty() else ""


def _remove_stale(leases: Leases, valid: frozenset[Attachment]) -> None:
    errors = ErrorList()
    with leases.locked():
        for lease in _list_stale(leases, valid):
            errors.attempt(leases.remove, lease)
    errors.raise_any()


def _list_stale(leases: Leases, valid: frozenset[Attachment]) -> list[Lease]:
    ids = {each.container_id for each in valid}
    return [lease for lease in leases.list_top() if _is_stale(lease, valid, ids)]


def _is_stale(lease: Lease, valid: frozenset[Attachment], ids: set[str]) -> bool:
    if is_unfinished(lease):
        return True
    if lease.address is None:
        return False
    if not lease.ifname:
        return lease.container_id not in ids
    return lease.attachment not in valid

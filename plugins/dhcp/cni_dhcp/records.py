"""The record of an attachment's lease, and the link that the lease is for.

ADD, DEL and the helper change a record under one lock, so that the helper never restores a record that DEL
has dropped.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.kernel import link, netns
from cni.kernel.rtnetlink import Netlink
from cni.service.client import FOLDER, Helper
from cni.state import attachments, files
from cni.state.lock import locked
from cni_dhcp import lease as leases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni.state.attachments import Key, Record
    from cni_dhcp.conf import DhcpConf
    from cni_dhcp.lease import Lease

PLUGIN = "dhcp"
HELPER = Helper(PLUGIN, "cni_dhcp.serve")
_LOCK = FOLDER / "dhcp.lock"
# The helper that renews the lease.
_OWNER = "helper"


def key_of(conf: DhcpConf, request: Request) -> Key:
    """Return the key of the attachment's record."""
    return attachments.Key(PLUGIN, conf.name, request.container_id, request.ifname)


def save(key: Key, lease: Lease, ns: Netns) -> None:
    """Save a lease in place of an earlier one."""
    files.ensure_directory(FOLDER)
    with locked(_LOCK):
        _write(key, lease, ns)


def replace(key: Key, before: Lease, lease: Lease, ns: Netns) -> bool:
    """Save a lease in place of `before`; return False, and save nothing, if that is not the one on record."""
    with locked(_LOCK):
        record = attachments.load(key)
        is_unchanged = record is not None and record.is_of(ns) and leases.read(record.values) == before
        if is_unchanged:
            _write(key, lease, ns)
    return is_unchanged


def drop(key: Key) -> None:
    """Drop the record of an attachment."""
    if attachments.load(key) is None:
        attachments.drop(key)
        return
    with locked(_LOCK):
        attachments.drop(key)


def remove(record: Record) -> None:
    """Remove a record that GC has found."""
    files.ensure_directory(FOLDER)
    with locked(_LOCK):
        attachments.remove(record)


def list_leases() -> list[tuple[Key, Record, Lease]]:
    """List the leases that the helper of this process's namespaces renews."""
    own = HELPER.key
    return [
        (key, record, lease)
        for key, record in attachments.list_all(PLUGIN)
        if record.values.get(_OWNER) == own
        and (lease := leases.read(record.values))
        and lease.state == leases.BOUND
    ]


def is_gone(record: Record) -> bool:
    """Return whether the namespace of a record is gone. Raise CniError 8."""
    with namespace_of(record) as ns:
        return ns is None


@contextmanager
def namespace_of(record: Record) -> Iterator[Netns | None]:
    """Open the namespace that a record was saved for; yield None if it is gone. Raise CniError 8."""
    ns = netns.find(record.netns)
    if ns is None:
        yield None
        return
    with ns:
        yield ns if record.is_of(ns) else None


def find_link(ns: Netns, ifname: str, lease: Lease) -> Link | None:
    """Return the link of a lease; None if it is gone, or another link has its name."""
    with Netlink(ns) as inside:
        found = link.find(inside, ifname)
    return found if found is not None and found.mac == lease.identity.mac.hex(":") else None


def _write(key: Key, lease: Lease, ns: Netns) -> None:
    attachments.save(key, lease.to_values() | {_OWNER: HELPER.key}, ns)

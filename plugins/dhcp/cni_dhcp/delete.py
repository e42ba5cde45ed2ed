"""DEL: release the lease, and drop its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.log import note
from cni.state import attachments
from cni_dhcp import lease as leases
from cni_dhcp import records
from cni_dhcp.exchange import Exchange

if TYPE_CHECKING:
    from cni.request import Request
    from cni.state.attachments import Record
    from cni_dhcp.conf import DhcpConf


def delete(conf: DhcpConf, request: Request) -> None:
    """Release the lease if the container's link is there; otherwise it ends at its time."""
    key = records.key_of(conf, request)
    if record := attachments.load(key):
        release(record)
    records.drop(key)


def release(record: Record) -> None:
    """Release the address of a record at its server, through the container's link if it is there.

    Raise CniError 8 if this process may not look for the namespace: the container may be using the address.
    """
    lease = leases.read(record.values)
    if lease is None or lease.is_over:
        return
    with records.namespace_of(record) as ns:
        if ns is None:
            return
        found = records.find_link(ns, record.ifname, lease)
        if found is None or not found.is_up:
            return
        try:
            with Exchange(ns, record.ifname, lease.identity) as exchange:
                exchange.release(lease)
        except CniError as error:
            # The lease ends at its time: nothing remains on this machine.
            note(f"dhcp: could not release {lease.address}: {error}")

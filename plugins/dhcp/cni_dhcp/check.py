"""CHECK: the lease is on record and valid, and the helper renews it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel.netns import open_netns
from cni.state import attachments
from cni_dhcp import lease as leases
from cni_dhcp import records
from cni_dhcp.exchange import now_s

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dhcp.conf import DhcpConf


def check(conf: DhcpConf, request: Request) -> None:
    """Raise CniError 104 if the container has no valid lease; start the helper if it does not run."""
    record = attachments.load(records.key_of(conf, request))
    lease = leases.read(record.values) if record else None
    with open_netns(request.netns) as ns:
        is_own = record is not None and record.is_of(ns)
    if lease is None or not is_own or lease.state == leases.OFFERED:
        raise _mismatch(f"no lease of {request.ifname} is on record")
    if lease.state == leases.REFUSED:
        raise _mismatch(f"server {lease.server} has refused to renew {lease.address} on {request.ifname}")
    if not lease.is_valid(now_s()):
        raise _mismatch(f"the lease of {lease.address} on {request.ifname} has expired")
    listed = [each.address.ip for each in request.required_prev_result().ips]
    if lease.address not in listed:
        shown = ", ".join(map(str, listed)) or "no address"
        raise _mismatch(f"the lease of {request.ifname} is {lease.address}, prevResult has {shown}")
    if lease.expires_s is not None:
        records.HELPER.wake()


def _mismatch(message: str) -> CniError:
    return CniError(Code.MISMATCH, f"dhcp: {message}", "Attach the container again.")

"""CHECK: whether the leases are there that ADD took, and name the attachment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni_host_local_ipam.ranges import find_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.ipam.leases import Leases
    from cni.request import Request
    from cni.result import IpAddress
    from cni_host_local_ipam.conf import HostLocalConf


def check(conf: HostLocalConf, leases: Leases, request: Request) -> None:
    """Raise CniError 104 that tells all that differs."""
    addresses = list_addresses(conf, request)
    if not leases.exists() or not leases.list_held_by(request.attachment, addresses):
        lost = "; ".join(_differences(conf, leases, request)) if leases.exists() else ""
        remedy = "pycni repair takes the addresses again, where nobody else has them"
        raise CniError(
            Code.MISMATCH,
            f"host-local: Failed to find address added by container {request.container_id}",
            f"no file in {leases.folder} names it and {request.ifname}; "
            + (f"{lost}; {remedy}" if lost else remedy),
        )
    found = list(_differences(conf, leases, request))
    if found:
        raise CniError(Code.MISMATCH, f"host-local: {found[0]}", "; ".join(found[1:]))


def list_addresses(conf: HostLocalConf, request: Request) -> list[IpAddress]:
    """Give the addresses of the result that are of our ranges; others may be another plugin's."""
    ips = request.prev_result.ips if request.prev_result else ()
    addresses = [ip.address.ip for ip in ips]
    return [each for each in addresses if any(find_range(ranges, each) for ranges in conf.range_sets)]


def _differences(conf: HostLocalConf, leases: Leases, request: Request) -> Iterator[str]:
    for address in list_addresses(conf, request):
        lease = leases.find(address)
        if lease is None:
            yield f"address {address} has no lease in {leases.folder}"
        elif not lease.is_held_by(request.attachment):
            yield f"address {address} is held by {lease.holder()}, says {lease.path}"

"""The leases of an attachment, which CHECK compares and repair restores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.operations.properties import Property
from cni_host_local_ipam.files import open_leases
from cni_host_local_ipam.ranges import find_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.ipam.leases import Leases
    from cni.request import Attachment, Request
    from cni.result import IpAddress
    from cni.undo import Undo
    from cni_host_local_ipam.conf import HostLocalConf


def list_properties(conf: HostLocalConf, request: Request) -> Iterator[Property]:
    """Yield whether the attachment has any lease, then the holder of each address of the result.

    Only addresses of our ranges count: others may be another plugin's.
    """
    leases, owner = open_leases(conf), request.attachment
    ips = request.prev_result.ips if request.prev_result else ()
    addresses = [
        ip.address.ip for ip in ips if any(find_range(each, ip.address.ip) for each in conf.range_sets)
    ]
    exists = leases.exists()
    yield Property(
        "any lease",
        exists and bool(leases.list_held_by(owner, addresses)),
        wanted=True,
        message=f"Failed to find address added by container {owner.container_id}",
        remedy=f"no file in {leases.folder} names it and {owner.ifname}; "
        "pycni repair takes the addresses again, where nobody else has them",
    )
    for address in addresses:
        lease = leases.find(address)
        yield Property(
            f"lease of {address}",
            lease is not None and lease.is_held_by(owner),
            wanted=True,
            message=f"address {address} is held by {lease.holder()}, says {lease.path}"
            if lease
            else f"address {address} has no lease in {leases.folder}",
            fix=partial(_take, leases, owner, address),
        )


def _take(leases: Leases, owner: Attachment, address: IpAddress, undo: Undo) -> str:
    undo.add(f"release {address}", leases.release, address, owner)
    with leases.locked():
        lease = leases.find(address)
        if lease is not None and not lease.is_empty():
            raise CniError(
                Code.POOL,
                f"address {address} of container {owner.container_id} is held by {lease.holder()}",
                f"{lease.path} says so; attach one of the two containers again",
            )
        leases.reserve(address, owner)
    return f"took {address} again"

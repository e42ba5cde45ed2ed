"""Take again the addresses of an attachment whose leases are gone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.operations.repair import Repaired
from cni_host_local_ipam.check import list_addresses

if TYPE_CHECKING:
    from cni.ipam.leases import Leases
    from cni.request import Attachment, Request
    from cni.result import IpAddress
    from cni.undo import Undo
    from cni_host_local_ipam.conf import HostLocalConf


def repair(conf: HostLocalConf, leases: Leases, request: Request) -> Repaired:
    """Take each address of the result that has no lease; one that somebody else has is an error told."""
    done = Repaired()
    for address in list_addresses(conf, request):
        lease = leases.find(address)
        if lease is None or not lease.is_held_by(request.attachment):
            done.attempt(partial(_take, leases, request.attachment, address))
    return done


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

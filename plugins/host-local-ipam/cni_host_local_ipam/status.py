"""STATUS: whether an ADD could take an address now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.log import note
from cni.operations.status import Reasons
from cni.state import files
from cni.state.lock import locked
from cni_host_local_ipam.files import open_leases, read_dns
from cni_host_local_ipam.plan import is_full
from cni_host_local_ipam.ranges import show_range_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.ipam.leases import Leases
    from cni.request import Request
    from cni_host_local_ipam.conf import HostLocalConf
    from cni_host_local_ipam.ranges import RangeSet


def status(conf: HostLocalConf, _request: Request) -> None:
    """Raise CniError 50 with every reason. A pool that is full now need not be when ADD comes."""
    leases, reasons = open_leases(conf), Reasons()
    reasons.attempt(_check_store, leases)
    reasons.attempt(read_dns, conf.ipam.resolv_conf)
    reasons.attempt(_check_pools, conf, leases)
    reasons.raise_any()


def _check_store(leases: Leases) -> None:
    try:
        files.check_writable(leases.folder)
        lock = leases.folder / "lock"
        if os.path.lexists(lock):
            with locked(lock, mode=0o750):
                pass
    except CniError as error:
        raise CniError(
            Code.NOT_AVAILABLE,
            f"no address can be given: {error.msg}",
            error.details or "ipam.dataDir names another place",
        ) from error


def _check_pools(conf: HostLocalConf, leases: Leases) -> None:
    for shown in _list_full(leases, conf.range_sets):
        text = f"no IP addresses available in range set: {shown}"
        if conf.ipam.status_fails_when_full:
            raise CniError(Code.NOT_AVAILABLE, text, f"the leases lie in {leases.folder}")
        note(f"host-local: warning: {text}")


def _list_full(leases: Leases, range_sets: Sequence[RangeSet]) -> list[str]:
    """Give the range sets that have no address left, as texts."""
    if not leases.exists():
        return []
    taken = [lease.address for lease in leases.list_top() if leases.is_alive(lease)]
    addresses = [each for each in taken if each is not None]
    return [show_range_set(each) for each in range_sets if is_full(each, addresses)]

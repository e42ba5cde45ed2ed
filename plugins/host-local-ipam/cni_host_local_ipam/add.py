"""ADD: take an address of each range set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_host_local_ipam.choose import choose
from cni_host_local_ipam.files import open_leases, read_dns
from cni_host_local_ipam.plan import list_requested, make_result, read_args

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.ipam.leases import Leases
    from cni.request import Attachment, Request
    from cni.result import IpAddress, Result
    from cni.undo import Undo
    from cni_host_local_ipam.conf import HostLocalConf
    from cni_host_local_ipam.plan import Choice


def add(conf: HostLocalConf, request: Request, undo: Undo) -> Result:
    """Return one address per range set, each with a lease on disk."""
    requested = list_requested(read_args(request) + conf.requested)
    dns = read_dns(conf.ipam.resolv_conf)
    choices = _take(open_leases(conf), request.attachment, conf, requested, undo)
    return make_result(conf, choices, dns)


def _take(
    leases: Leases, owner: Attachment, conf: HostLocalConf, requested: Iterable[IpAddress], undo: Undo
) -> list[Choice]:
    """Return the choices. Raise CniError 102 if a set has no address, 105 for a second ADD."""
    undo.add(f"remove {leases.folder}", leases.remove_unused)
    with leases.locked():
        before = [leases.read_last(number) for number in range(len(conf.range_sets))]
        choices = choose(leases, owner, before, conf.range_sets, requested)
        new = [each for each in choices if not each.is_held]
        for each in new:
            undo.add(
                "restore last_reserved_ip",
                leases.restore_last,
                each.number,
                before[each.number],
                each.address,
            )
        for each in new:
            undo.add(f"release {each.address}", leases.release, each.address, owner)
            leases.reserve(each.address, owner)
        for each in new:
            leases.write_last(each.number, each.address)
    return choices

"""The verbs of the host-local plugin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.ipam.leases import Leases
from cni.plugin import Plugin
from cni_host_local_ipam import apply
from cni_host_local_ipam.conf import HostLocalConf, parse_requested
from cni_host_local_ipam.plan import list_requested, make_result

if TYPE_CHECKING:
    from cni.operations.garbage import Stale
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import IpAddress, Result
    from cni.undo import Undo


def add(conf: HostLocalConf, request: Request, undo: Undo) -> Result:
    """Take an address of each range set and note that on disk."""
    requested = list_requested(_requested_by_args(request) + conf.requested)
    dns = apply.read_dns(conf.ipam.resolv_conf)
    choices = apply.take(_leases(conf), request.attachment, conf.range_sets, requested, undo)
    return make_result(conf, choices, dns)


def delete(conf: HostLocalConf, request: Request) -> None:
    """Give back what the attachment holds; the ranges may be others than at ADD."""
    _requested_by_args(request)
    given = request.prev_result.ips if request.prev_result else ()
    apply.release(_leases(conf), request.attachment, [each.address.ip for each in given])


def check(conf: HostLocalConf, request: Request) -> None:
    """Raise CniError 104 unless the attachment holds an address, and those that the result says."""
    from cni_host_local_ipam.check import check as compare

    _requested_by_args(request)
    compare(conf, _leases(conf), request)


def gc(conf: HostLocalConf, request: Request) -> None:
    """Remove the leases of attachments that are gone; without a list of valid ones nothing is removed."""
    from cni.operations import garbage
    from cni_host_local_ipam import collect

    garbage.collect("host-local", collect.finders(_leases(conf), conf.name, request.valid_attachments))


def plan_gc(conf: HostLocalConf, request: Request) -> list[Stale]:
    """Tell what `gc` would remove."""
    from cni.operations import garbage
    from cni_host_local_ipam import collect

    return garbage.plan(collect.finders(_leases(conf), conf.name, request.valid_attachments))


def status(conf: HostLocalConf, _request: Request) -> None:
    """Raise CniError 50 when ADD would fail."""
    from cni_host_local_ipam.status import status as look

    look(conf, _leases(conf))


def repair(conf: HostLocalConf, request: Request) -> Repaired:
    """Take addresses again whose leases are gone."""
    from cni_host_local_ipam.repair import repair as mend

    return mend(conf, _leases(conf), request)


def _leases(conf: HostLocalConf) -> Leases:
    return Leases(Path(conf.folder), keeps_over_boot=conf.ipam.keep_over_boot)


def _requested_by_args(request: Request) -> tuple[IpAddress, ...]:
    """Give the address that CNI_ARGS asks for, if any. Raises CniError 4."""
    text = request.known_args("IP").get("IP")
    if not text:
        return ()
    try:
        return (parse_requested(text),)
    except ValueError as error:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'ARGS: error parsing value of pair "IP={text}": {error}',
            "IP in CNI_ARGS is one address, such as 10.1.0.5",
        ) from error


PLUGIN = Plugin(
    "host-local",
    "addresses out of ranges, noted on disk",
    HostLocalConf,
    add,
    delete,
    check,
    gc,
    status,
    plan_gc=plan_gc,
    repair=repair,
)

"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.dns import records
from cni.dns.client import HELPER
from cni.errors import CniError, Code
from cni.kernel.dbus import find_bus
from cni.operations.properties import Property
from cni_dnsname import admission, gateways, publish
from cni_dnsname.plan import plan_key, plan_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.dns.names import Record
    from cni.request import Request
    from cni.undo import Undo
    from cni_dnsname.conf import DnsnameConf

_REMEDY = "Call ADD again, or let pycni repair publish the names."


def list_properties(conf: DnsnameConf, request: Request) -> Iterator[Property]:
    """Yield the record of the names, and whether the server answers at each gateway."""
    found = gateways.find(request.required_prev_result())
    saved = records.load(plan_key(conf, request))
    since_ns = saved.since_ns if saved else publish.now_ns()
    wanted = plan_record(conf, request, found, since_ns=since_ns, owner=HELPER.key)
    if saved:
        # One namespace may have several paths.
        settings = wanted.settings._replace(hosts=saved.settings.hosts, pid_file=saved.settings.pid_file)
        # A list without the capability gives CHECK no servers: ADD had them by a command of ours.
        upstreams = wanted.upstreams or saved.upstreams
        wanted = wanted._replace(netns=saved.netns, settings=settings, upstreams=upstreams)
    name = wanted.names[0]
    bus = find_bus(request.env)
    fix = partial(_publish, wanted, bus)
    missing = f'the name "{name}" is not on record' if saved is None else f'the record of "{name}" is another'
    yield Property(f'record of "{name}"', saved, wanted, missing, fix, remedy=_REMEDY)
    refused, lost = _differences(wanted, bus)
    for each in lost:
        yield Property("", each, "", each, fix, remedy=_REMEDY)
    silent = list(publish.unanswered(wanted))
    for gateway in wanted.settings.gateways:
        message = f'the DNS server at {gateway} does not answer "{name}" with the container\'s address'
        yield Property(
            f'answer for "{name}"',
            gateway not in silent,
            wanted=True,
            message=message,
            fix=fix,
            remedy=_REMEDY,
        )
    if not silent and not lost and (reasons := refused or admission.list_filters()):
        yield from _unheard(wanted, reasons)


def _differences(record: Record, bus: str) -> tuple[list[str], list[str]]:
    """Return why the firewall cannot be asked, and the rules that are missing."""
    try:
        return [], admission.differences(record, bus)
    except CniError as error:
        if error.code != Code.FIREWALL:
            raise
        return [error.msg], []


def _unheard(record: Record, reasons: Sequence[str]) -> Iterator[Property]:
    """Yield the gateways at which the host gets an answer and the container does not."""
    for gateway in publish.unheard(record):
        message = f"the container gets no answer from the DNS server at {gateway}"
        rules = " or ".join(admission.shown_rules(record, gateway))
        yield Property(
            f"answer to the container from {gateway}",
            actual=False,
            wanted=True,
            message=f"{message}: a filter of the host may drop its queries: {', '.join(reasons)}",
            remedy=f'Accept them in the chain that drops: "{rules}" in the words of nftables.',
        )


def _publish(record: Record, bus: str, _undo: Undo) -> str:
    publish.publish(record, bus, everywhere=True)
    return f'published the name "{record.names[0]}"'

"""ADD: publish the names of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.dns.client import HELPER
from cni.kernel.dbus import find_bus
from cni_dnsname import dnsmasq, gateways, publish
from cni_dnsname.plan import plan_record, plan_result

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_dnsname.conf import DnsnameConf


def add(conf: DnsnameConf, request: Request, undo: Undo) -> Result:
    """Return prevResult with the server's addresses, when the server answers the container's name."""
    result = request.required_prev_result()
    found = gateways.find(result)
    record = plan_record(conf, request, found, since_ns=publish.now_ns(), owner=HELPER.key)
    if folder := dnsmasq.find_folder(conf, request):
        hosts, pid_file = dnsmasq.take_over(folder)
        record = record._replace(settings=record.settings._replace(hosts=hosts, pid_file=pid_file))
    undo.add("withdraw the names", publish.withdraw, record.key)
    publish.publish(record, find_bus(request.env))
    return plan_result(conf, result, found)

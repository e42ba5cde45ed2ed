"""DEL: put the interface's routes back into the main table, and remove its rules and their tables."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.kernel import addr, link, netns
from cni.state import attachments
from cni_sbr import record, tables
from cni_sbr.plan import list_ips

if TYPE_CHECKING:
    from cni.kernel.rtnetlink import Netlink
    from cni.request import Request
    from cni.result import IpNetwork
    from cni_sbr.conf import SbrConf


def delete(conf: SbrConf, request: Request) -> None:
    """Take all back; succeed without the interface, whose routes are gone, and without the namespace."""
    key = record.key_of(conf.name, request.attachment)
    ns = netns.find(request.netns)
    if ns is not None:
        with ns:
            change = record.load(key, ns)
            with tables.opened(ns, removes=True) as nl:
                if change:
                    record.take_back(nl, change)
                else:
                    tables.remove_rules(nl, _list_sources(nl, request), conf.table)
    attachments.drop(key)


def _list_sources(nl: Netlink, request: Request) -> list[IpNetwork]:
    """List the addresses of an attachment of the Go plugin: those of the result and of the interface."""
    addresses = [ip.address for ip in list_ips(request)]
    if own := link.find(nl, request.ifname):
        addresses += [each.address for each in addr.list_addrs(nl, own.index) if each.is_global]
    return [ip_network(each.ip) for each in addresses]

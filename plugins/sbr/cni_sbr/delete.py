"""DEL: remove the rules of the interface's addresses. Its routes go with the interface."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.kernel import addr, link, netns
from cni.state import attachments
from cni_sbr import tables
from cni_sbr.plan import list_ips

if TYPE_CHECKING:
    from cni.kernel.rtnetlink import Netlink
    from cni.request import Request
    from cni.result import IpNetwork
    from cni_sbr.conf import SbrConf


def delete(conf: SbrConf, request: Request) -> None:
    """Remove the rules; succeed without the interface, and without the namespace."""
    ns = netns.find(request.netns)
    if ns is not None:
        with ns:
            saved = tables.load(conf, request, ns)
            with tables.opened(ns) as nl:
                for network, table in saved.items():
                    tables.remove_rules(nl, [ip_network(network)], table)
                if not saved:
                    tables.remove_rules(nl, _list_sources(nl, request), conf.table)
    attachments.drop(tables.key(conf, request))


def _list_sources(nl: Netlink, request: Request) -> list[IpNetwork]:
    """List the addresses of an attachment of the Go plugin: those of the result and of the interface."""
    addresses = [ip.address for ip in list_ips(request)]
    if own := link.find(nl, request.ifname):
        addresses += [each.address for each in addr.list_addrs(nl, own.index) if each.is_global]
    return [ip_network(each.ip) for each in addresses]

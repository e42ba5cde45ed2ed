"""The addresses of the host that the server answers at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import addr, link, route
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.result import IpAddress, Result


def find(result: Result) -> list[IpAddress]:
    """Return the gateways of a result that are the host's, or else the addresses of its link on the host.

    Raise CniError 7 if there are none: a container could not reach the server.
    """
    with Netlink() as nl:
        wanted = dict.fromkeys(each.gateway for each in result.ips if each.gateway)
        gateways = [each for each in wanted if route.is_local(nl, each)]
        if not gateways:
            names = [each.name for each in result.interfaces if not each.sandbox]
            links = [each for name in names if (each := link.find(nl, name))]
            listed = [each for own in links for each in addr.list_addrs(nl, own.index)]
            gateways = [each.address.ip for each in listed if each.is_global]
    if not gateways:
        raise CniError(
            Code.INVALID_CONFIG,
            "the host has no address on the network: its containers cannot reach the DNS server",
            'Set "isGateway" of the bridge to true, or remove this plugin from the list.',
        )
    return gateways

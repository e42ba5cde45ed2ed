"""The wanted state of both ends of an attachment, as frozen data; pure."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import NamedTuple

from cni.interface.plan import Layer3, complete_routes
from cni.result import Ip, Route

# Where the container's link stands in the result, after the host end.
CONTAINER_INDEX = 1
# rtnetlink(7); the kernel ignores the scope of IPv6 routes.
_SCOPE_LINK, _SCOPE_HOST = 253, 254


class Ends(NamedTuple):
    """The addresses and routes of the container's end, and of the host end."""

    container: Layer3
    host: Layer3


def plan_ends(ips: tuple[Ip, ...], routes: tuple[Route, ...]) -> Ends:
    """Plan both ends; `routes` are those of the result.

    The container sends everything through the gateway, to its own subnet as well. The host end has the
    gateway's address, and a route to each address of the container.
    """
    through: list[Route] = []
    for ip in ips:
        if ip.gateway:
            own = ip.address.ip
            through.append(Route(ip_network(ip.gateway), scope=_SCOPE_LINK, src=own))
            through.append(Route(ip.address.network, ip.gateway, src=own))
    gateways = dict.fromkeys(ip.gateway for ip in ips if ip.gateway)
    return Ends(
        Layer3(ips, (*through, *complete_routes(routes, ips, prefix_route=False)), prefix_route=False),
        Layer3(
            tuple(Ip(ip_interface(each)) for each in gateways),
            tuple(Route(ip_network(ip.address.ip), scope=_SCOPE_HOST) for ip in ips),
        ),
    )

"""Which rules and routes send an interface's addresses through it; pure."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.result import Route

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cni.kernel.route import KernelRoute
    from cni.request import Request
    from cni.result import Ip, IpAddress, IpNetwork
    from cni_sbr.conf import SbrConf

# Go's plugin starts there, too.
FIRST_TABLE = 100
_EVERY = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class Source(NamedTuple):
    """An address of the interface, and the table for what the container sends from it."""

    ip: Ip
    table: int

    @property
    def network(self) -> IpNetwork:
        """The address alone, as a rule has it."""
        return ip_network(self.ip.address.ip)


def required_ips(request: Request) -> tuple[Ip, ...]:
    """Return the addresses of the interface in prevResult. Raise CniError 7 if there are none."""
    result = request.prev_result
    if result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "This plugin must be called as chained plugin",
            "list sbr behind the plugin that makes the container's interface",
        )
    ips = list_ips(request)
    if not ips:
        raise CniError(
            Code.INVALID_CONFIG,
            f"No IP addresses supplied on interface: {request.ifname}",
            "the plugin before sbr must give the interface an address",
        )
    return ips


def list_ips(request: Request) -> tuple[Ip, ...]:
    """Return the addresses of the interface in prevResult, none without a result.

    An address that names no interface belongs to the interface as well.
    """
    result = request.prev_result
    if result is None:
        return ()
    own = {
        number
        for number, each in enumerate(result.interfaces)
        if each.name == request.ifname and each.sandbox
    }
    return tuple(ip for ip in result.ips if ip.interface is None or ip.interface in own)


def plan_sources(conf: SbrConf, ips: Iterable[Ip], used: Collection[int]) -> list[Source]:
    """Return a source for each address, with the configured table, or else with one that is not in use."""
    free: Iterator[int] = (each for each in count(FIRST_TABLE) if each not in used)
    return [Source(ip, conf.table or next(free)) for ip in ips]


def plan_default(conf: SbrConf, source: Source) -> list[Route]:
    """Return the default route of the source's table; none without a gateway.

    With a configured table there is none: its owner fills it.
    """
    gateway = gateway_of(conf, source.ip)
    if conf.table or gateway is None:
        return []
    return [Route(_EVERY[gateway.version], gateway, table=source.table)]


def plan_copies(conf: SbrConf, source: Source, main: Iterable[KernelRoute]) -> list[KernelRoute]:
    """Return the routes of the interface in the main table that the source's table gets as well.

    A default route of the main table gives way to the table's own.
    """
    has_default = bool(plan_default(conf, source))
    ip = source.ip
    return [
        each
        for each in main
        if each.route.dst.version == ip.address.version
        and _fits(each, ip)
        and (each.route.dst.prefixlen or not has_default)
    ]


def is_moved(conf: SbrConf, listed: KernelRoute) -> bool:
    """Return whether a route of the interface in the main table leaves it.

    Without the route of link-local addresses IPv6 finds no neighbour. A route through several links is not
    only the interface's.
    """
    is_link_local = listed.route.dst.version == 6 and listed.route.dst.is_link_local
    return not conf.table and not is_link_local and bool(listed.encoded)


def gateway_of(conf: SbrConf, ip: Ip) -> IpAddress | None:
    """Return the gateway of an address: a configured one of its family, else its own."""
    version = ip.address.version
    return next((each for each in conf.gateways if each.version == version), ip.gateway)


def plan_hints(conf: SbrConf, ips: Iterable[Ip]) -> list[Route]:
    """Return the routes that come back into the main table."""
    if not conf.add_source_hints or conf.table:
        return []
    return [Route(ip.address.network, scope=253, src=ip.address.ip) for ip in ips]


def _fits(listed: KernelRoute, ip: Ip) -> bool:
    """Return whether a route belongs to the subnet of an address, or to none."""
    named = [each for each in (listed.src, listed.route.gw) if each is not None]
    return not named or any(each in ip.address.network for each in named)

"""The wanted state of an attachment, as frozen data; pure."""

from __future__ import annotations

import hashlib
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.addresses import join_networks
from cni.errors import CniError, Code
from cni.firewall.intents import Gateway, Masquerade, Owner
from cni.interface.conf import IFNAME_BYTES, PRIORITY_MAX, PRIORITY_MIN
from cni.marks import alias
from cni.result import Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.conf import NetConf
    from cni.interface.conf import MasqueradeConf
    from cni.request import Request
    from cni.result import Interface, Ip, IpAddress, Result

MAIN_TABLE = 254
# The metrics of default routes by priority, each with some for networks of the same priority. They are below
# 1024, the metric of IPv6 routes that have none and of routers that announce themselves.
_METRIC_OF_0, _PER_PRIORITY = 500, 4


def metrics_of(priority: int) -> range:
    """Return the metrics for default routes of a priority; the first network with it has the first one."""
    first = _METRIC_OF_0 - priority * _PER_PRIORITY
    return range(first, first + _PER_PRIORITY)


# All metrics that a priority can have.
RANKED = range(metrics_of(PRIORITY_MAX)[0], metrics_of(PRIORITY_MIN)[-1] + 1)
# The first octets of a MAC address that is derived from an IPv4 address. Docker (02:42) and OVN (0a:58) have
# others.
_DERIVED_PREFIX = "0e:c1"
# The sysctl that lets the host route, by IP version.
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class PairPlan(NamedTuple):
    """The veth pair between the host and a container.

    `host_name` is the name of the host end unless another link has it; `alias` is the mark of its owner.
    `mac` is the MAC address of the container end, "" for a random one. `mtu` 0 leaves the MTU to the kernel.
    """

    owner: Owner
    netns: str
    ifname: str
    host_name: str
    alias: str
    mtu: int = 0
    mac: str = ""
    is_up: bool = True


class Layer3(NamedTuple):
    """The addresses and routes of a container's link.

    `routes` are complete: each has its gateway if it has one. With `dad` the kernel checks that no other
    machine has the IPv6 addresses, which takes a second. Without `prefix_route` the kernel adds no route to
    the addresses' own subnets.
    """

    ips: tuple[Ip, ...]
    routes: tuple[Route, ...] = ()
    dad: bool = False
    prefix_route: bool = True


def owner_of(conf: NetConf, request: Request) -> Owner:
    """Return the owner of the links and rules of an attachment."""
    return Owner(conf.name, request.container_id, request.ifname)


def plan_pair(
    conf: NetConf, request: Request, mtu: int = 0, mac: str = "", *, is_up: bool = True
) -> PairPlan:
    """Plan the veth pair of an attachment."""
    owner = owner_of(conf, request)
    mark = alias(conf.name, request.attachment)
    return PairPlan(owner, request.netns, request.ifname, host_name(owner), mark, mtu, mac, is_up)


def host_name(owner: Owner) -> str:
    """Return the host end's name, as "veth1a2b3c4d", which DEL derives again without a namespace."""
    text = f"{owner.network}/{owner.container_id}/{owner.ifname}"
    return f"veth{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def recorded_host_end(result: Result, inside: Interface) -> Interface | None:
    """Return the host end in the result of ADD: it comes right before the container's end, `inside`.

    None if there is no link of the host, or one whose name the kernel cannot have.
    """
    place = result.interfaces.index(inside) - 1
    end = result.interfaces[place] if place >= 0 else None
    return end if end and not end.sandbox and 0 < len(end.name.encode()) <= IFNAME_BYTES else None


def required_ips(
    leased: Result, ipam_type: str, place: int, *, with_gateways: bool = False
) -> tuple[Ip, ...]:
    """Return the addresses of an IPAM result for the link at `place` in the interfaces of the result.

    Raise CniError 7 if there are none, or if one lacks a gateway and `with_gateways` needs it.
    """
    if not leased.ips:
        raise CniError(
            Code.INVALID_CONFIG,
            "IPAM plugin returned missing IP config",
            f"{ipam_type} succeeded but gave no address",
        )
    for ip in leased.ips:
        if with_gateways and ip.gateway is None:
            raise CniError(
                Code.INVALID_CONFIG,
                f"IPAM plugin returned no gateway for {ip.address}",
                f'Set a gateway of this subnet in the "ipam" object of {ipam_type}.',
            )
    return tuple(ip._replace(interface=place) for ip in leased.ips)


def versions_of(ips: Iterable[Ip]) -> tuple[int, ...]:
    """Return the IP versions of addresses."""
    return tuple(sorted({ip.address.version for ip in ips}))


def derived_mac(address: IpAddress) -> str:
    """Return the MAC address that belongs to an IPv4 address: unicast, locally administered.

    Neighbours that remember an earlier container with the IPv4 address need no announcement of this one.
    """
    return f"{_DERIVED_PREFIX}:{address.packed.hex(':')}"


def first_gateway(ips: Iterable[Ip], version: int) -> IpAddress | None:
    """Return the first gateway of an IP version."""
    return next((ip.gateway for ip in ips if ip.gateway and ip.gateway.version == version), None)


def default_routes(ips: tuple[Ip, ...], routes: tuple[Route, ...]) -> list[Route]:
    """Return a default route of each IP version that has none with a gateway yet."""
    added = []
    for version, every in ((4, "0.0.0.0/0"), (6, "::/0")):
        default = ip_network(every)
        gateway = first_gateway(ips, version)
        if gateway and not any(route.dst == default and route.gw for route in routes):
            added.append(Route(default, gateway))
    return added


def ranked(routes: Iterable[Route], metrics: Mapping[int, int]) -> tuple[Route, ...]:
    """Return routes whose default routes have these metrics, by IP version, unless IPAM gave them one."""
    return tuple(
        each._replace(priority=each.priority or metrics.get(each.dst.version, 0))
        if not each.dst.prefixlen and each.table in {None, MAIN_TABLE}
        else each
        for each in routes
    )


def complete_routes(
    routes: Iterable[Route], ips: tuple[Ip, ...], *, prefix_route: bool = True
) -> tuple[Route, ...]:
    """Return the routes of a result as ADD makes them: a route without a gateway takes the first one.

    Without `prefix_route` the kernel has no connected route to the other gateways of the addresses' subnets.
    """
    gateways = {each.gateway for each in ips}
    return tuple(
        each._replace(
            gw=each.gw or first_gateway(ips, each.dst.version),
            is_onlink=not prefix_route
            and each.gw not in {None, *gateways}
            and any(each.gw in ip.address.network for ip in ips),
        )
        for each in routes
    )


def plan_masquerade(conf: MasqueradeConf, owner: Owner, ips: Iterable[Ip]) -> Masquerade | None:
    """Plan the masquerade of the container's addresses; None if the configuration asks for none."""
    own = [ip for ip in ips if ip.address.version in conf.masqueraded_versions]
    if not conf.has_masquerade or not own:
        return None
    gateways = [
        Gateway(ip.gateway, ip.address.network)
        for ip in own
        if ip.gateway and ip.gateway in ip.address.network
    ]
    excepted = join_networks(conf.ip_masq_except)
    return Masquerade(owner, tuple(ip.address for ip in own), tuple(gateways), excepted)

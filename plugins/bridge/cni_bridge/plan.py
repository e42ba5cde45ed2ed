"""What should exist for an attachment, as frozen data; pure."""

from __future__ import annotations

import hashlib
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall.intents import Gateway as SubnetGateway
from cni.firewall.intents import Masquerade, Owner
from cni.marks import alias
from cni.result import Interface, Ip, IpAddress, IpInterface, Result, Route

if TYPE_CHECKING:
    from cni.request import Request
    from cni_bridge.conf import BridgeConf

# Where the container's link stands in the result, after the bridge and the host end.
CONTAINER_INDEX = 2
# What lets the host route, by IP version.
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_IFNAME_BYTES = 15


class BridgePlan(NamedTuple):
    """The bridge; an MTU of 0 is the kernel's default."""

    name: str
    mtu: int
    vlan_filtering: bool
    promisc: bool


class VlanPlan(NamedTuple):
    """The VLANs of the host end; `pvid` 0 is none, `trunk` are the tagged ones, sorted."""

    pvid: int
    trunk: tuple[int, ...]
    keeps_default: bool


class LinkPlan(NamedTuple):
    """The bridge, and the veth pair between it and the container.

    `host_name` is the name to try first; `alias` tells whose host end it is. `mac` is the container's, ""
    for a random one.
    """

    owner: Owner
    bridge: BridgePlan
    netns: str
    ifname: str
    host_name: str
    alias: str
    mtu: int
    mac: str
    hairpin: bool
    isolated: bool
    spoof_check: bool
    vlans: VlanPlan | None
    is_up: bool


class Gateway(NamedTuple):
    """The gateway's addresses and the link that has them: the bridge, or the end of one of its VLANs."""

    link: str
    bridge: str
    vlan: int
    addresses: tuple[IpInterface, ...]
    force: bool
    dad: bool


class AddressPlan(NamedTuple):
    """What the container gets on layer 3; `routes` are complete, each with its gateway if it has one."""

    ips: tuple[Ip, ...]
    routes: tuple[Route, ...]
    shown_routes: tuple[Route, ...]
    gateway: Gateway | None
    masquerade: Masquerade | None
    dad: bool

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions of the addresses."""
        return tuple(sorted({ip.address.version for ip in self.ips}))


class Ends(NamedTuple):
    """The links as they were made: MAC addresses, MTU, and the host end's name."""

    bridge_mac: str
    host_name: str
    host_mac: str
    container_mac: str
    mtu: int


def plan_links(conf: BridgeConf, request: Request) -> LinkPlan:
    """Plan bridge and veth pair. Raises CniError 7 for a bad MAC address and 4 for bad CNI_ARGS."""
    owner = plan_owner(conf, request)
    vlans = VlanPlan(conf.vlan, conf.trunk, conf.preserve_default_vlan)
    return LinkPlan(
        owner=owner,
        bridge=plan_bridge(conf),
        netns=request.netns,
        ifname=request.ifname,
        host_name=host_name(owner),
        alias=alias(conf.name, request.attachment),
        mtu=conf.mtu,
        mac=conf.mac_from(request.known_args("MAC")),
        hairpin=conf.hairpin_mode,
        isolated=conf.port_isolation,
        spoof_check=conf.macspoofchk,
        vlans=vlans if conf.needs_vlan_filtering else None,
        is_up=not conf.disable_container_interface,
    )


def plan_bridge(conf: BridgeConf) -> BridgePlan:
    """Plan the bridge, which all attachments of the network share."""
    return BridgePlan(conf.bridge, conf.mtu, conf.needs_vlan_filtering, conf.promisc_mode)


def plan_owner(conf: BridgeConf, request: Request) -> Owner:
    """Give whose rules and links they are."""
    return Owner(conf.name, request.container_id, request.ifname)


def host_name(owner: Owner) -> str:
    """Give the host end's name, as "veth1a2b3c4d": found again when there is no namespace to ask."""
    text = f"{owner.network}/{owner.container_id}/{owner.ifname}"
    return f"veth{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def recorded_host_end(result: Result, inside: Interface) -> Interface | None:
    """Return what the result of ADD says of the host end: it comes right before the container's end.

    None if there is no link of the host, or one whose name the kernel cannot have.
    """
    place = result.interfaces.index(inside) - 1
    found = result.interfaces[place] if place >= 0 else None
    return found if found and not found.sandbox and 0 < len(found.name.encode()) <= _IFNAME_BYTES else None


def plan_addresses(conf: BridgeConf, owner: Owner, leased: Result) -> AddressPlan:
    """Plan addresses, routes, gateway and masquerade from what IPAM gave.

    Raises CniError 7 when IPAM gave no address, or for a VLAN's gateway link that no name fits.
    """
    if not leased.ips:
        raise CniError(
            Code.INVALID_CONFIG,
            "IPAM plugin returned missing IP config",
            f"{conf.ipam.type} succeeded but gave no address",
        )
    ips = tuple(_with_gateway(conf, ip) for ip in leased.ips)
    shown = (*leased.routes, *_default_routes(conf, ips, leased.routes))
    return AddressPlan(
        ips=ips,
        routes=tuple(_with_gw(route, ips) for route in shown),
        shown_routes=shown,
        gateway=plan_gateway(conf, ips),
        masquerade=plan_masquerade(conf, owner, ips),
        dad=conf.enabledad,
    )


def _with_gateway(conf: BridgeConf, ip: Ip) -> Ip:
    gateway = ip.gateway
    if gateway is None and conf.has_gateway:
        gateway = ip.address.network.network_address + 1
    return ip._replace(gateway=gateway, interface=CONTAINER_INDEX)


def _default_routes(conf: BridgeConf, ips: tuple[Ip, ...], routes: tuple[Route, ...]) -> list[Route]:
    """Give a default route of each family that has none with a gateway yet."""
    if not conf.is_default_gateway:
        return []
    added = []
    for version, every in ((4, "0.0.0.0/0"), (6, "::/0")):
        default = ip_network(every)
        gateway = _first_gateway(ips, version)
        if gateway and not any(route.dst == default and route.gw for route in routes):
            added.append(Route(default, gateway))
    return added


def _first_gateway(ips: tuple[Ip, ...], version: int) -> IpAddress | None:
    return next((ip.gateway for ip in ips if ip.gateway and ip.gateway.version == version), None)


def _with_gw(route: Route, ips: tuple[Ip, ...]) -> Route:
    return route if route.gw else route._replace(gw=_first_gateway(ips, route.dst.version))


def complete_routes(routes: tuple[Route, ...], ips: tuple[Ip, ...]) -> tuple[Route, ...]:
    """Give routes of a result with their gateways, as they are to be made."""
    return tuple(_with_gw(each, ips) for each in routes)


def plan_gateway(conf: BridgeConf, ips: tuple[Ip, ...]) -> Gateway | None:
    """Plan the gateway's addresses, each with the prefix of the container's; IPv4 before IPv6."""
    if not conf.has_gateway:
        return None
    found = [ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}") for ip in ips if ip.gateway]
    addresses = sorted(dict.fromkeys(found), key=lambda each: each.version)
    link = gateway_link(conf.bridge, conf.vlan)
    if len(link.encode()) > _IFNAME_BYTES:
        raise CniError(
            Code.INVALID_CONFIG,
            f'failed to create vlan gateway "{link}": the name is longer than {_IFNAME_BYTES} bytes',
            "give the bridge a shorter name",
        )
    return Gateway(link, conf.bridge, conf.vlan, tuple(addresses), conf.force_address, conf.enabledad)


def plan_masquerade(conf: BridgeConf, owner: Owner, ips: tuple[Ip, ...]) -> Masquerade | None:
    """Plan the masquerade of all of the container's addresses."""
    if not conf.has_masquerade:
        return None
    gateways = [
        SubnetGateway(ip.gateway, ip.address.network)
        for ip in ips
        if ip.gateway and ip.gateway in ip.address.network
    ]
    return Masquerade(owner, tuple(ip.address for ip in ips), tuple(gateways))


def gateway_link(bridge: str, vlan: int) -> str:
    """Name the link on the host that has the gateway's addresses."""
    return f"{bridge}.{vlan}" if vlan else bridge


def gateway_port_alias(vlan: int) -> str:
    """Give the alias of the port of the bridge that leads to a VLAN's gateway."""
    return f"pycni gateway of VLAN {vlan}"


def plan_result(plan: LinkPlan, ends: Ends, addresses: AddressPlan | None, vlan_gateway_mac: str) -> Result:
    """Give the result without DNS settings."""
    interfaces = [
        Interface(plan.bridge.name, ends.bridge_mac),
        Interface(ends.host_name, ends.host_mac, mtu=ends.mtu),
        Interface(plan.ifname, ends.container_mac, plan.netns, ends.mtu),
    ]
    if addresses is None:
        return Result(tuple(interfaces))
    if vlan_gateway_mac and addresses.gateway:
        interfaces.append(Interface(addresses.gateway.link, vlan_gateway_mac))
    return Result(tuple(interfaces), addresses.ips, addresses.shown_routes)

"""The wanted state of an attachment, as frozen data; pure."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.interface.conf import IFNAME_BYTES
from cni.interface.plan import (
    Layer3,
    PairPlan,
    complete_routes,
    default_routes,
    plan_masquerade,
    plan_pair,
    ranked,
    required_ips,
)
from cni.result import Interface, Ip, IpInterface, Result, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.firewall.intents import Masquerade, Owner
    from cni.interface.pair import Pair
    from cni.kernel.link import Link
    from cni.request import Request
    from cni_bridge.conf import BridgeConf

# Where the container's link stands in the result, after the bridge and the host end.
CONTAINER_INDEX = 2


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


class PortPlan(NamedTuple):
    """The host end as a port of the bridge; `vlans` is None on a bridge that does not filter VLANs."""

    hairpin: bool
    isolated: bool
    vlans: VlanPlan | None


class LinkPlan(NamedTuple):
    """The bridge, the veth pair between it and the container, and the port."""

    bridge: BridgePlan
    pair: PairPlan
    port: PortPlan
    spoof_check: bool


class Gateway(NamedTuple):
    """The gateway's addresses and the link that has them: the bridge, or the gateway link of a VLAN."""

    link: str
    bridge: str
    vlan: int
    addresses: tuple[IpInterface, ...]
    force: bool
    dad: bool


class AddressPlan(NamedTuple):
    """The addresses and routes of the container, its gateway and its masquerade.

    `shown_routes` are the routes of the result: as IPAM gave them, with the default routes that were added.
    """

    layer3: Layer3
    shown_routes: tuple[Route, ...]
    gateway: Gateway | None
    masquerade: Masquerade | None


def plan_links(conf: BridgeConf, request: Request) -> LinkPlan:
    """Plan bridge and veth pair. Raise CniError 7 for a bad MAC address and 4 for bad CNI_ARGS."""
    mac = conf.mac_from(request.known_args("MAC"))
    vlans = VlanPlan(conf.vlan, conf.trunk, conf.preserve_default_vlan) if conf.needs_vlan_filtering else None
    return LinkPlan(
        bridge=plan_bridge(conf),
        pair=plan_pair(conf, request, conf.mtu, mac, is_up=not conf.disable_container_interface),
        port=PortPlan(conf.hairpin_mode, conf.port_isolation, vlans),
        spoof_check=conf.macspoofchk,
    )


def plan_bridge(conf: BridgeConf) -> BridgePlan:
    """Plan the bridge, which all attachments of the network share."""
    return BridgePlan(conf.bridge, conf.mtu, conf.needs_vlan_filtering, conf.promisc_mode)


def plan_addresses(
    conf: BridgeConf, owner: Owner, leased: Result, metrics: Mapping[int, int] | None = None
) -> AddressPlan:
    """Plan addresses, routes, gateway and masquerade from the result of IPAM.

    `metrics` are those of `ranked`.

    Raise CniError 7 if IPAM gave no address, or if the name of a VLAN's gateway link would be too long.
    """
    ips = tuple(_with_gateway(conf, ip) for ip in required_ips(leased, conf.ipam.type, CONTAINER_INDEX))
    added = default_routes(ips, leased.routes) if conf.is_default_gateway else []
    shown = ranked((*leased.routes, *added), metrics or {})
    return AddressPlan(
        layer3=Layer3(ips, complete_routes(shown, ips), dad=conf.enabledad),
        shown_routes=shown,
        gateway=plan_gateway(conf, ips),
        masquerade=plan_masquerade(conf, owner, ips),
    )


def _with_gateway(conf: BridgeConf, ip: Ip) -> Ip:
    gateway = ip.gateway
    if gateway is None and conf.has_gateway:
        gateway = ip.address.network.network_address + 1
    return ip._replace(gateway=gateway)


def plan_gateway(conf: BridgeConf, ips: tuple[Ip, ...]) -> Gateway | None:
    """Plan the gateway's addresses, each with the prefix of the container's address; IPv4 before IPv6."""
    if not conf.has_gateway:
        return None
    found = [ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}") for ip in ips if ip.gateway]
    addresses = sorted(dict.fromkeys(found), key=lambda each: each.version)
    link = gateway_link(conf.bridge, conf.vlan)
    if len(link.encode()) > IFNAME_BYTES:
        raise CniError(
            Code.INVALID_CONFIG,
            f'failed to create vlan gateway "{link}": the name is longer than {IFNAME_BYTES} bytes',
            "give the bridge a shorter name",
        )
    return Gateway(link, conf.bridge, conf.vlan, tuple(addresses), conf.force_address, conf.enabledad)


def gateway_link(bridge: str, vlan: int) -> str:
    """Return the name of the host's link that has the gateway's addresses."""
    return f"{bridge}.{vlan}" if vlan else bridge


def gateway_port_alias(vlan: int) -> str:
    """Return the alias of the bridge port whose other end is a VLAN's gateway."""
    return f"pycni gateway of VLAN {vlan}"


def plan_result(
    plan: LinkPlan, bridge: Link, pair: Pair, addresses: AddressPlan | None = None, holder: Link | None = None
) -> Result:
    """Return the result without DNS settings; `holder` is the link that has the gateway's addresses."""
    interfaces = [Interface(bridge.name, bridge.mac), *pair.interfaces(plan.pair)]
    if addresses is None:
        return Result(tuple(interfaces))
    if holder and holder.name != bridge.name:
        interfaces.append(Interface(holder.name, holder.mac))
    return Result(tuple(interfaces), addresses.layer3.ips, addresses.shown_routes)

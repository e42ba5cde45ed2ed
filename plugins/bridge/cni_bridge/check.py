"""Compare what exists with what the configuration and the result of ADD say; only reads.

Attachments that the Go plugins made must pass: what those do not make, or only some releases make, is
not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import addr, link, netns, route, sysctl, vlan
from cni.errors import CniError, Code
from cni.firewall import select, spoofcheck
from cni_bridge.links import open_sides, port_vlans
from cni_bridge.plan import plan_gateway, plan_masquerade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import Masquerade
    from cni.link import Link
    from cni.netlink import Netlink
    from cni.request import Request
    from cni.result import Interface, Ip, IpNetwork, Result, Route
    from cni_bridge.conf import BridgeConf
    from cni_bridge.links import Sides
    from cni_bridge.plan import Gateway, LinkPlan

_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_STATE = {True: "on", False: "off"}


def check(conf: BridgeConf, request: Request, plan: LinkPlan) -> None:
    """Raise CniError 104 whose message is the first difference and whose details are the others."""
    result = request.required_prev_result()
    with open_sides(plan.netns) as sides:
        first, *others = [*_differences(conf, plan, result, sides), ""]
    if first:
        raise CniError(Code.MISMATCH, first, "; ".join(filter(None, others)))


def _differences(conf: BridgeConf, plan: LinkPlan, result: Result, sides: Sides) -> Iterator[str]:
    recorded = _own_interface(plan, result)
    bridge = link.find(sides.host, plan.bridge.name)
    container = link.find(sides.inside, plan.ifname)
    host = link.find_by_index(sides.host, container.peer) if container and container.peer else None
    yield from _of_bridge(conf, plan, result, bridge)
    yield from _of_container(plan, recorded, container)
    if container is None or container.kind != "veth":
        return
    yield from _of_host_end(plan, result, bridge, host)
    if host is not None:
        yield from _of_port(plan, host, sides.host)
    ips = _own_ips(result, recorded)
    yield from _of_addresses(ips, container, sides.inside)
    yield from _of_routes(result.routes, sides.inside)
    if gateway := plan_gateway(conf, ips):
        yield from _of_gateway(gateway, sides.host)
    if masquerade := plan_masquerade(conf, plan.owner, ips):
        yield from _of_masquerade(conf, masquerade)
    if plan.spoof_check and host is not None:
        yield from spoofcheck.differences(plan.owner, host.name, container.mac)


def _own_interface(plan: LinkPlan, result: Result) -> Interface:
    """Find the container's link in the result; raises CniError 104 where there is none."""
    named = [each for each in result.interfaces if each.name == plan.ifname and each.sandbox]
    if not named:
        raise CniError(
            Code.MISMATCH,
            f"Interface name {plan.ifname} not found",
            "prevResult names no link of the container so",
        )
    for each in named:
        if each.sandbox == plan.netns or _is_same_netns(each.sandbox, plan.netns):
            return each
    raise CniError(
        Code.MISMATCH,
        f"Sandbox in prevResult {named[0].sandbox} doesn't match configured netns: {plan.netns}",
    )


def _is_same_netns(one: str, other: str) -> bool:
    """Tell whether two paths are one namespace, as /var/run/netns/x and /run/netns/x may be."""
    if netns.is_gone(one):
        return False
    with netns.open_netns(one) as first, netns.open_netns(other) as second:
        return first.inode == second.inode


def _own_ips(result: Result, recorded: Interface) -> tuple[Ip, ...]:
    """Give the addresses of the container's link; those that name no link are its as well."""
    place = result.interfaces.index(recorded)
    return tuple(ip for ip in result.ips if ip.interface in {None, place})


def _of_bridge(conf: BridgeConf, plan: LinkPlan, result: Result, bridge: Link | None) -> Iterator[str]:
    name = plan.bridge.name
    recorded = [each for each in result.interfaces if each.name == name and not each.sandbox]
    if not recorded:
        yield f"Interface name {name} not found in prevResult"
    if bridge is None:
        yield f"Interface {name} of the host does not exist"
        return
    if bridge.kind != "bridge":
        yield f"Interface {name} does not have link type of bridge"
        return
    # Without an address to defend, a bridge of the Go plugins takes the MAC address of some port.
    if conf.has_gateway and recorded and recorded[0].mac not in {"", bridge.mac}:
        yield f"Bridge interface {name} has MAC address {bridge.mac}, not {recorded[0].mac}"
    if bridge.is_promisc != plan.bridge.promisc:
        state = f"{bridge.is_promisc}".lower()
        wanted = f"{plan.bridge.promisc}".lower()
        yield (
            f"Bridge interface {name} configured Promisc Mode {wanted} doesn't match current state: {state}"
        )
    if not bridge.is_up:
        yield f"Bridge interface {name} is down"
    if plan.bridge.vlan_filtering and not bridge.vlan_filtering:
        yield f"Bridge interface {name} does not filter VLANs"


def _of_container(plan: LinkPlan, recorded: Interface, container: Link | None) -> Iterator[str]:
    name = plan.ifname
    if container is None:
        yield f"Interface {name} does not exist in {plan.netns}"
        return
    if container.kind != "veth":
        yield f"Container interface {name} is not of type veth"
    if recorded.mac and recorded.mac != container.mac:
        yield f"Interface {name} Mac {container.mac} doesn't match container Mac: {recorded.mac}"
    if recorded.mtu and recorded.mtu != container.mtu:
        yield f"Interface {name} has MTU {container.mtu}, not {recorded.mtu}"
    if plan.is_up and not container.is_up:
        yield f"Interface {name} is down"


def _of_host_end(plan: LinkPlan, result: Result, bridge: Link | None, host: Link | None) -> Iterator[str]:
    if host is None or host.kind != "veth":
        yield f"the host end of interface {plan.ifname} does not exist on this host"
        return
    recorded = [each for each in result.interfaces if each.name == host.name and not each.sandbox]
    if not recorded:
        yield f"Interface name {host.name}, the host end of {plan.ifname}, not found in prevResult"
    elif recorded[0].mac not in {"", host.mac}:
        yield f"Interface {host.name} Mac {host.mac} doesn't match host Mac: {recorded[0].mac}"
    if bridge is not None and host.master != bridge.index:
        yield f"Interface {host.name} is not a port of bridge {bridge.name}"
    if plan.mtu and host.mtu != plan.mtu:
        yield f"Interface {host.name} has MTU {host.mtu}, not {plan.mtu}"
    if not host.is_up:
        yield f"Interface {host.name} is down"


def _of_port(plan: LinkPlan, host: Link, nl: Netlink) -> Iterator[str]:
    if host.port is not None and host.port.hairpin != plan.hairpin:
        yield f"Bridge port {host.name} has hairpin mode {_STATE[host.port.hairpin]}"
    if host.port is not None and host.port.isolated != plan.isolated:
        yield f"Bridge port {host.name} has isolation {_STATE[host.port.isolated]}"
    if plan.vlans is None:
        return
    found = {each.vid for each in vlan.list_vlans(nl, host.index)}
    wanted = {vid for each in port_vlans(plan.vlans) for vid in range(each.vid, each.last + 1)}
    # More than that is no fault: older releases of the Go plugins leave the default VLAN on.
    if missing := sorted(wanted - found):
        yield f"Bridge port {host.name} is not in VLAN {', '.join(map(str, missing))}"


def _of_addresses(ips: tuple[Ip, ...], container: Link, inside: Netlink) -> Iterator[str]:
    found = {each.address for each in addr.list_addrs(inside, container.index)}
    for ip in ips:
        if ip.address not in found:
            yield f"Failed to match addr {ip.address} on interface {container.name}"


def _of_routes(routes: tuple[Route, ...], inside: Netlink) -> Iterator[str]:
    found = route.list_routes(inside, 0)
    for wanted in routes:
        if not any(_is_as_wanted(each, wanted) for each in found):
            yield f"Expected Route {{Dst: {wanted.dst}, GW: {wanted.gw}}} not found in routing table"


def _is_as_wanted(found: Route, wanted: Route) -> bool:
    """Compare as the Go plugins do: of a default route only the destination counts."""
    if found.dst != wanted.dst or wanted.table not in {None, 0, found.table}:
        return False
    return _is_default(wanted.dst) or wanted.gw in {None, found.gw}


def _is_default(dst: IpNetwork) -> bool:
    return dst.prefixlen == 0


def _of_gateway(gateway: Gateway, nl: Netlink) -> Iterator[str]:
    holder = link.find(nl, gateway.link)
    if holder is None:
        yield f"Interface {gateway.link} of the host does not exist"
        return
    found = {each.address for each in addr.list_addrs(nl, holder.index)}
    for address in gateway.addresses:
        if address not in found:
            yield f"Failed to match addr {address}, the gateway's, on interface {gateway.link}"
    for version in sorted({address.version for address in gateway.addresses}):
        if sysctl.read(_FORWARDING[version]) != "1":
            yield f"this host does not forward IPv{version}: sysctl {_FORWARDING[version]} is not 1"


def _of_masquerade(conf: BridgeConf, masquerade: Masquerade) -> list[str]:
    """Tell what the backend misses, unless the other one has it: ADD may have had another choice."""
    chosen = select.choose(conf.ip_masq_backend, "ipmasq")
    missing = chosen.differences_masquerade(masquerade)
    for name in select.NAMES if missing else ():
        if name == chosen.name:
            continue
        other = select.choose(name, "ipmasq")
        if not other.unusable_because() and not other.differences_masquerade(masquerade):
            return []
    return missing

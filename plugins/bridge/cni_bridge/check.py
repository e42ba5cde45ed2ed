"""Compare what exists with what the configuration and the result of ADD say; only reads.

Attachments that the Go plugins made must pass: what those do not make, or only some releases make, is
not asked for.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cni import delegate
from cni.convert import RouteJson
from cni.errors import CniError, Code
from cni.firewall import select, spoofcheck
from cni.kernel import addr, bridge_vlan, link, netns, route, sysctl, veth
from cni.kernel import bridge as kernel_bridge
from cni.request import Verb
from cni.versions import FIRST_WITH_DETAILS, at_least
from cni_bridge.links import open_sides, port_vlans
from cni_bridge.plan import FORWARDING, plan_gateway, plan_masquerade, recorded_host_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import Masquerade
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.request import Request
    from cni.result import Interface, Ip, IpNetwork, Result, Route
    from cni_bridge.conf import BridgeConf
    from cni_bridge.links import Sides
    from cni_bridge.plan import Gateway, LinkPlan

_STATE = {True: "on", False: "off"}


def check(conf: BridgeConf, request: Request, plan: LinkPlan) -> None:
    """Raise CniError 104 whose message is the first difference and whose details are the others.

    What IPAM finds comes last; its own error is raised where there is nothing else.
    """
    result = request.required_prev_result()
    with open_sides(plan.netns) as sides:
        found = list(differences(conf, plan, result, sides, brief=request.verb is Verb.CHECK_ANY))
    try:
        if conf.ipam.type:
            delegate.check(conf.ipam.type, request)
    except CniError as error:
        if not found:
            raise
        found.append(str(error))
    if found:
        raise CniError(Code.MISMATCH, found[0], "; ".join(found[1:]))


def differences(
    conf: BridgeConf, plan: LinkPlan, result: Result, sides: Sides, *, brief: bool = False
) -> Iterator[str]:
    """Yield all that is not as ADD made it. Raise CniError 104 if the result is not this attachment's.

    `brief` names what rules are for instead of the rules, as `pycni repair` shows it to people.
    """
    recorded = own_interface(plan, result)
    bridge = link.find(sides.host, plan.bridge.name)
    container, host = find_pair(plan, result, recorded, sides)
    yield from _of_bridge(conf, plan, result, bridge)
    yield from _of_container(plan, recorded, container)
    if container is None or container.kind != "veth":
        return
    renamed = None if host else veth.find_by_index(sides.host, container, sides.ns)
    if renamed:
        yield f"Interface name {renamed.name}, the host end of {plan.ifname}, not found in prevResult"
    else:
        yield from _of_host_end(plan, result, bridge, host)
    is_ours = host is not None and host.name == plan.host_name
    if host is not None:
        yield from _of_port(plan, host, sides.host)
        if bridge and bridge.is_up and host.is_up and container.is_up and host.operstate != "up":
            yield f"Interface {host.name} carries no traffic, it is in state {host.operstate}"
        if is_ours:
            yield from _of_our_host_end(plan, host)
    ips = own_ips(result, recorded)
    yield from _of_addresses(ips, container, sides)
    yield from _of_routes(promised_routes(conf, result), sides.inside, compare_metrics=is_ours)
    if gateway := plan_gateway(conf, ips):
        yield from of_gateway(gateway, bridge, sides.host)
    if masquerade := plan_masquerade(conf, plan.owner, ips):
        missing = of_masquerade(conf, masquerade)
        yield from _name_masqueraded(masquerade) if missing and brief else missing
    if plan.spoof_check and host is not None:
        yield from spoofcheck.differences(plan.owner, host.name, recorded.mac or container.mac)


def find_pair(
    plan: LinkPlan, result: Result, recorded: Interface, sides: Sides
) -> tuple[Link | None, Link | None]:
    """Return the container's link and its host end, None for each that does not exist.

    The host end is the link of the host that has the attachment's name, or the one in the result, and that
    leads to the container's link as seen from the host. The container chooses what its own link shows.
    """
    container = link.find(sides.inside, plan.ifname)
    told = recorded_host_end(result, recorded)
    names = [plan.host_name, told.name] if told and told.name != plan.host_name else [plan.host_name]
    return container, veth.find(sides.host, names, sides.ns).end_of(container)


def own_interface(plan: LinkPlan, result: Result) -> Interface:
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


def own_ips(result: Result, recorded: Interface) -> tuple[Ip, ...]:
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
    if plan.bridge.vlan_filtering and not kernel_bridge.describe(bridge).vlan_filtering:
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
    # Not the MTU: a later plugin of the chain may change it, and the Go suite's tuning leaves the result as
    # it was, also in versions with an MTU of interfaces.
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
    port = kernel_bridge.describe_port(host)
    if port is not None and port.hairpin != plan.hairpin:
        yield f"Bridge port {host.name} has hairpin mode {_STATE[port.hairpin]}"
    if port is not None and port.isolated != plan.isolated:
        yield f"Bridge port {host.name} has isolation {_STATE[port.isolated]}"
    for name, is_on in kernel_bridge.describe_port_flags(host).items():
        if not is_on:
            yield f"Bridge port {host.name} has {name} off"
    if plan.vlans is None:
        return
    present = bridge_vlan.list_vlans(nl, host.index)
    found = {each.vid for each in present}
    wanted = port_vlans(plan.vlans)
    # More than that is no fault: older releases of the Go plugins leave the default VLAN on.
    if missing := sorted({vid for each in wanted for vid in range(each.vid, each.last + 1)} - found):
        yield f"Bridge port {host.name} is not in VLAN {', '.join(map(str, missing))}"
    for each in wanted:
        entry = next((one for one in present if one.vid == each.vid), None)
        if each.pvid and entry and not (entry.pvid and entry.untagged):
            yield f"Bridge port {host.name} does not have VLAN {each.vid} untagged"


def _of_our_host_end(plan: LinkPlan, host: Link) -> Iterator[str]:
    """Compare what the Go plugins, or some of their releases, do not set."""
    if host.alias != plan.alias:
        yield f'Interface {host.name} has alias "{host.alias}", by which its owner is not known'
    key = f"net/ipv6/conf/{host.name}/accept_ra"
    if sysctl.read(key) not in {"0", None}:
        yield f"sysctl {key} is not 0: the host may take a container for its router"


def _of_addresses(ips: tuple[Ip, ...], container: Link, sides: Sides) -> Iterator[str]:
    found = {each.address: each for each in addr.list_addrs(sides.inside, container.index)}
    for ip in ips:
        if ip.address not in found:
            yield f"Failed to match addr {ip.address} on interface {container.name}"
        elif found[ip.address].is_duplicate:
            yield f"Address {ip.address} of interface {container.name} is in use by another machine"
    key = f"net/ipv6/conf/{container.name}/disable_ipv6"
    with sides.ns.entered():
        is_disabled = any(ip.address.version == 6 for ip in ips) and sysctl.read(key) == "1"
    if is_disabled:
        yield f"IPv6 is switched off in {sides.ns.path}: sysctl {key} is 1"


def _of_routes(routes: tuple[Route, ...], inside: Netlink, *, compare_metrics: bool) -> Iterator[str]:
    found = route.list_routes(inside, 0)
    for wanted in routes:
        alike = [each for each in found if _is_as_wanted(each, wanted)]
        if not alike:
            yield f"Expected Route {{Dst: {wanted.dst}, GW: {wanted.gw}}} not found in routing table"
        elif compare_metrics and not any(_has_metrics(each, wanted) for each in alike):
            yield (
                f"Route to {wanted.dst} has mtu {alike[0].mtu} and advmss {alike[0].advmss}, "
                f"not {wanted.mtu} and {wanted.advmss}"
            )


def promised_routes(conf: BridgeConf, result: Result) -> tuple[Route, ...]:
    """Return the routes of a result as ADD made them.

    Results older than 1.1.0 have no place for table, metric, MTU and the like: these are taken from the
    routes in the configuration of IPAM, where host-local and other plugins have them from.
    """
    if at_least(conf.cni_version, FIRST_WITH_DETAILS):
        return result.routes
    of_ipam = {key.lower(): value for key, value in (conf.ipam.model_extra or {}).items()}
    listed = of_ipam.get("routes")
    configured = []
    for each in listed if isinstance(listed, list) else ():
        # The configuration is another plugin's, which may have routes of another kind.
        with suppress(ValidationError):
            configured.append(RouteJson.model_validate(each).to_route())
    return tuple(
        next((each._replace(gw=wanted.gw) for each in configured if _is_same_route(each, wanted)), wanted)
        for wanted in result.routes
    )


def _is_same_route(configured: Route, shown: Route) -> bool:
    return configured.dst == shown.dst and configured.gw in {None, shown.gw}


def missing_routes(routes: tuple[Route, ...], inside: Netlink) -> list[Route]:
    """List those of a result's routes that are not there."""
    found = route.list_routes(inside, 0)
    return [wanted for wanted in routes if not any(_is_as_wanted(each, wanted) for each in found)]


def _has_metrics(found: Route, wanted: Route) -> bool:
    return wanted.mtu in {0, found.mtu} and wanted.advmss in {0, found.advmss}


def _is_as_wanted(found: Route, wanted: Route) -> bool:
    """Compare as the Go plugins do: of a default route only the destination counts."""
    if found.dst != wanted.dst or wanted.table not in {None, 0, found.table}:
        return False
    return _is_default(wanted.dst) or wanted.gw in {None, found.gw}


def _is_default(dst: IpNetwork) -> bool:
    return dst.prefixlen == 0


def of_gateway(gateway: Gateway, bridge: Link | None, nl: Netlink) -> Iterator[str]:
    """Tell what differs of the gateway's link, its addresses and the host's forwarding."""
    holder = link.find(nl, gateway.link)
    if holder is None:
        if gateway.vlan:
            yield f"Interface {gateway.link} of the host does not exist"
        return
    if gateway.vlan:
        yield from _of_vlan_gateway(gateway, holder, bridge, nl)
    found = {each.address for each in addr.list_addrs(nl, holder.index)}
    for address in gateway.addresses:
        if address not in found:
            yield f"Failed to match addr {address}, the gateway's, on interface {gateway.link}"
    for version in sorted({address.version for address in gateway.addresses}):
        if sysctl.read(FORWARDING[version]) != "1":
            yield f"this host does not forward IPv{version}: sysctl {FORWARDING[version]} is not 1"


def _of_vlan_gateway(gateway: Gateway, holder: Link, bridge: Link | None, nl: Netlink) -> Iterator[str]:
    if not holder.is_up:
        yield f"Interface {holder.name} is down"
    port = link.find_by_index(nl, holder.local_peer) if holder.local_peer else None
    if port is None or bridge is None or port.master != bridge.index:
        yield f"Interface {holder.name}, the gateway, does not lead to bridge {gateway.bridge}"
    elif gateway.vlan not in {each.vid for each in bridge_vlan.list_vlans(nl, port.index)}:
        yield f"Bridge port {port.name}, the gateway's, is not in VLAN {gateway.vlan}"


def _name_masqueraded(masquerade: Masquerade) -> list[str]:
    return [f"masquerading of {each.ip}: rules are missing" for each in masquerade.addresses]


def of_masquerade(conf: BridgeConf, masquerade: Masquerade) -> list[str]:
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

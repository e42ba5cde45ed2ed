"""The properties of an attachment to a bridge: one list for CHECK, repair and STATUS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import compare, rules
from cni.interface.compare import holds, send
from cni.interface.plan import Layer3, plan_masquerade
from cni.kernel import addr, bridge_vlan, link, veth
from cni.kernel import bridge as kernel_bridge
from cni.operations.properties import Property
from cni_bridge import bridges, fresh, gateways
from cni_bridge.plan import plan_gateway

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from cni.interface.compare import Attachment
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.operations.properties import Fix
    from cni.undo import Undo
    from cni_bridge.conf import BridgeConf
    from cni_bridge.plan import BridgePlan, Gateway, LinkPlan

_STATE = {True: "on", False: "off"}


def list_properties(conf: BridgeConf, plan: LinkPlan, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""
    nl = of.sides.host
    bridge = yield from _of_recorded_bridge(conf, plan.bridge, of)
    container, host = of.find_pair()
    yield from compare.of_container(of, container)
    if container is None or container.kind != veth.KIND:
        return
    yield from compare.of_host_end(of, container, host)
    if host is not None:
        if bridge is not None:
            is_its_own = of.host_mac(bridge.name) == bridge.mac
            put = _put_on_bridge if is_its_own else _put_on_other_bridge
            yield of_master(bridge, host, partial(put, plan, bridge, host, nl))
            host = host if host.master == bridge.index else link.get(nl, host.name)
        yield from _of_port(plan, host, nl)
        yield compare.of_host_state(nl, host)
        if bridge is not None:
            yield from compare.of_traffic(host, bridge, container)
    routes = compare.promised_routes(conf, of.result)
    is_ours = host is not None and host.name == of.plan.host_name
    yield from compare.of_layer3(of, Layer3(of.ips), routes, container, compare_metrics=is_ours)
    if gateway := plan_gateway(conf, of.ips):
        fix = partial(_restore_gateway, gateway, plan, nl, host.name) if host else None
        yield from of_gateway(gateway, bridge, nl, fix)
    if masquerade := plan_masquerade(conf, of.plan.owner, of.ips):
        yield from rules.of_masquerade(conf, masquerade)
    if plan.spoof_check and host is not None:
        yield from rules.of_spoof_check(of, host, container)


def _of_recorded_bridge(
    conf: BridgeConf, plan: BridgePlan, of: Attachment
) -> Generator[Property, None, Link | None]:
    """Yield the properties of the bridge; return it, None if there is none."""
    name, nl = plan.name, of.sides.host
    mac = of.host_mac(name)
    yield holds(mac is not None, f"Interface name {name} not found in prevResult")
    bridge = link.find(nl, name)
    fix = partial(_make_bridge, plan, nl, mac or "")
    yield holds(bridge is not None, f"Interface {name} of the host does not exist", fix)
    bridge = bridge or link.find(nl, name)
    if bridge is None:
        return None
    message = f"Interface {name} does not have link type of bridge"
    yield Property("", bridge.kind, kernel_bridge.KIND, message, partial(_refuse, plan, bridge))
    if bridge.kind != kernel_bridge.KIND:
        return bridge
    # Without an address to defend, a bridge of the Go plugins takes the MAC address of some port.
    if conf.has_gateway and mac:
        message = f"Bridge interface {name} has MAC address {bridge.mac}, not {mac}"
        yield Property("", bridge.mac, mac, message, partial(_restore_mac, bridge, nl, mac))
    yield from of_bridge(plan, bridge, nl)
    return bridge


def of_bridge(plan: BridgePlan, bridge: Link, nl: Netlink) -> Iterator[Property]:
    """Yield the properties of the bridge that all its containers share."""
    name, has, wants = bridge.name, bridge.is_promisc, plan.promisc
    message = (
        f"Bridge interface {name} configured Promisc Mode {str(wants).lower()} "
        f"doesn't match current state: {str(has).lower()}"
    )
    flags = {"on": link.IFF_PROMISC} if wants else {"off": link.IFF_PROMISC}
    fix = send(nl, f"bridge {name}: set promiscuous mode", link.set_flags(name, bridge.index, **flags))
    yield Property("", has, wants, message, fix)
    message = f"Bridge interface {name} is down"
    yield compare.of_state(nl, bridge, message, impairment=f"bridge {name} is down")
    if plan.vlan_filtering:
        is_filtering = kernel_bridge.describe(bridge).vlan_filtering
        message = f"Bridge interface {name} does not filter VLANs"
        yield holds(is_filtering, message, partial(_refuse, plan, bridge))


def _refuse(plan: BridgePlan, bridge: Link, _undo: Undo) -> str:
    """Raise what ADD raises for this bridge: only the administrator can change it."""
    bridges.check_kind(plan, bridge)
    bridges.check_vlan_filtering(plan, bridge)
    return ""


def _make_bridge(plan: BridgePlan, nl: Netlink, mac: str, undo: Undo) -> str:
    with bridges.bridge_locked(plan.name):
        # With the MAC address by which the containers know the gateway.
        bridges.ensure(nl, plan, undo, mac)
    return f"made bridge {plan.name}"


def _restore_mac(bridge: Link, nl: Netlink, mac: str, _undo: Undo) -> str:
    with bridges.bridge_locked(bridge.name):
        # A bridge with ports keeps the address that their containers know.
        if link.list_links(nl, bridge.index):
            return ""
        nl.batch([link.set_mac(bridge.name, bridge.index, mac)])
    return f"bridge {bridge.name}: set its MAC address to {mac}"


def of_master(bridge: Link, host: Link, fix: Fix | None = None) -> Property:
    """Return the property that a host end is a port of the bridge."""
    message = f"Interface {host.name} is not a port of bridge {bridge.name}"
    impairment = f"links of containers are not ports of bridge {bridge.name}"
    return Property(host.name, host.master, bridge.index, message, fix, impairment=impairment)


def _put_on_bridge(plan: LinkPlan, bridge: Link, host: Link, nl: Netlink, _undo: Undo) -> str:
    # In one send: the port is in no other VLAN for a moment.
    on_bridge = link.set_master(host.name, host.index, bridge.index)
    nl.batch([on_bridge, *bridges.port_messages(host.name, host.index, plan.port)])
    bridges.keep_mac(nl, bridge, link.get(nl, bridge.name))
    return f"{host.name}: put it on bridge {bridge.name}"


def _put_on_other_bridge(plan: LinkPlan, bridge: Link, host: Link, nl: Netlink, undo: Undo) -> str:
    # The container was on an earlier bridge of this name, and may remember MAC addresses from there.
    fresh.forget(bridge.name)
    return _put_on_bridge(plan, bridge, host, nl, undo)


def _of_port(plan: LinkPlan, host: Link, nl: Netlink) -> Iterator[Property]:
    name, index, wanted = host.name, host.index, plan.port
    if port := kernel_bridge.describe_port(host):
        set_port = kernel_bridge.set_port(name, index, kernel_bridge.Port(wanted.hairpin, wanted.isolated))
        fix = send(nl, f"{name}: set hairpin mode and isolation", set_port)
        message = f"Bridge port {name} has hairpin mode {_STATE[port.hairpin]}"
        yield Property("", port.hairpin, wanted.hairpin, message, fix)
        message = f"Bridge port {name} has isolation {_STATE[port.isolated]}"
        yield Property("", port.isolated, wanted.isolated, message, fix)
    fix = send(nl, f"{name}: switched learning and flooding on", kernel_bridge.set_port_flags(name, index))
    for flag, is_on in kernel_bridge.describe_port_flags(host).items():
        yield holds(is_on, f"Bridge port {name} has {flag} off", fix)
    if wanted.vlans is None:
        return
    fix = send(nl, f"{name}: put it into its VLANs", *bridges.vlan_messages(name, index, wanted.vlans))
    present = bridge_vlan.list_vlans(nl, index)
    vids = {each.vid for each in present}
    vlans = bridges.port_vlans(wanted.vlans)
    # More VLANs are no fault: older releases of the Go plugins leave the default VLAN on.
    missing = sorted({vid for each in vlans for vid in range(each.vid, each.last + 1)} - vids)
    message = f"Bridge port {name} is not in VLAN {', '.join(map(str, missing))}"
    yield Property("", missing, [], message, fix)
    for each in vlans:
        entry = next((one for one in present if one.vid == each.vid), None)
        if each.pvid and entry:
            message = f"Bridge port {name} does not have VLAN {each.vid} untagged"
            yield holds(entry.pvid and entry.untagged, message, fix)


def of_gateway(
    gateway: Gateway, bridge: Link | None, nl: Netlink, fix: Fix | None = None
) -> Iterator[Property]:
    """Yield the properties of the gateway's link, its addresses and the host's forwarding.

    Without addresses in `gateway`, which STATUS does not know, the link must have some.
    """
    name = gateway.link
    holder = link.find(nl, name)
    if gateway.vlan:
        message = f"Interface {name} of the host does not exist"
        impairment = f"the gateway's link {name} is gone"
        yield holds(holder is not None, message, fix, impairment=impairment)
        holder = holder or link.find(nl, name)
    if holder is None:
        return
    if gateway.vlan:
        yield from _of_vlan_gateway(gateway, holder, bridge, nl, fix)
    present = {each.address for each in addr.list_addrs(nl, holder.index) if each.is_global}
    for address in gateway.addresses:
        message = f"Failed to match addr {address}, the gateway's, on interface {name}"
        yield holds(address in present, message, fix)
    if not gateway.addresses:
        yield holds(bool(present), impairment=f"{name} has lost the gateway's addresses")
    yield from compare.of_forwarding(each.version for each in gateway.addresses or present)


def _of_vlan_gateway(
    gateway: Gateway, holder: Link, bridge: Link | None, nl: Netlink, fix: Fix | None
) -> Iterator[Property]:
    name = holder.name
    impairment = f"the gateway's link {name} is down"
    yield holds(holder.is_up, f"Interface {name} is down", fix, impairment=impairment)
    port = link.find_by_index(nl, holder.local_peer) if holder.local_peer else None
    is_on_bridge = port is not None and bridge is not None and port.master == bridge.index
    message = f"Interface {name}, the gateway, does not lead to bridge {gateway.bridge}"
    yield holds(is_on_bridge, message, fix)
    if port is not None and is_on_bridge:
        vids = {each.vid for each in bridge_vlan.list_vlans(nl, port.index)}
        message = f"Bridge port {port.name}, the gateway's, is not in VLAN {gateway.vlan}"
        yield holds(gateway.vlan in vids, message, fix)


def _restore_gateway(gateway: Gateway, plan: LinkPlan, nl: Netlink, host_name: str, undo: Undo) -> str:
    bridge = link.get(nl, gateway.bridge)
    if gateway.vlan and plan.port.vlans is not None:
        gateways.ensure_vlan_link(nl, gateway, bridge, plan.port.vlans, undo)
        gateways.reattach(nl, gateway, bridge, plan.port.vlans)
    gateways.ensure(nl, gateway, link.get(nl, gateway.link), host_name, undo)
    return f"{gateway.link}: gave it {', '.join(map(str, gateway.addresses))} and let the host forward"

"""Make again what an attachment misses: bridge, port, gateway, rules, and at its own end what CHECK tells.

What is as it should be is not touched, so that connections go on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import CniError, Code
from cni.firewall import select, spoofcheck
from cni.kernel import addr, bridge_vlan, link, route, sysctl
from cni.kernel import bridge as kernel_bridge
from cni.operations.repair import Repaired
from cni_bridge import bridges, check, layer3, vlan_gateway
from cni_bridge.links import open_sides, port_vlans, vlan_messages
from cni_bridge.plan import complete_routes, plan_gateway, plan_links, plan_masquerade

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message
    from cni.request import Request
    from cni.result import Interface, Ip, Result, Route
    from cni.undo import Undo
    from cni_bridge.conf import BridgeConf
    from cni_bridge.links import Sides
    from cni_bridge.plan import Gateway, LinkPlan


def repair(conf: BridgeConf, request: Request) -> Repaired:
    """Repair an attachment. Raises CniError 104 when its veth pair is gone: only an ADD makes that."""
    plan = plan_links(conf, request)
    result = request.required_prev_result()
    done = Repaired()
    with open_sides(plan.netns) as sides:
        recorded = check.own_interface(plan, result)
        container, host = _find_pair(plan, result, recorded, sides)
        ips = check.own_ips(result, recorded)
        done.attempt(partial(_bridge, conf, plan, result, sides))
        done.attempt(partial(_host_end, plan, result, sides, host))
        done.attempt(partial(_container_end, plan, recorded, sides, container))
        done.attempt(partial(_addresses, check.promised_routes(conf, result), ips, sides, container))
        if gateway := plan_gateway(conf, ips):
            done.attempt(partial(_gateway, gateway, plan, sides, host))
        done.attempt(partial(_masquerade, conf, plan, ips))
        if plan.spoof_check:
            done.attempt(partial(_spoof_check, plan, host, recorded.mac))
    if conf.ipam.type:
        done.extend(delegate.repair(conf.ipam.type, request))
    return done


def _find_pair(plan: LinkPlan, result: Result, recorded: Interface, sides: Sides) -> tuple[Link, Link]:
    container, host = check.find_pair(plan, result, recorded, sides)
    if container is None or host is None:
        raise CniError(
            Code.MISMATCH,
            f"the veth pair of {plan.ifname} in {plan.netns} is gone and cannot be repaired",
            "attach the container again: DEL, then ADD",
        )
    return container, host


def _named(result: Result, name: str) -> str:
    """Give the MAC address that the result has for a link of the host, "" without one."""
    return next((each.mac for each in result.interfaces if each.name == name and not each.sandbox), "")


def _bridge(conf: BridgeConf, plan: LinkPlan, result: Result, sides: Sides, undo: Undo) -> str:
    name, mac = plan.bridge.name, _named(result, plan.bridge.name)
    with bridges.bridge_locked(name):
        before = link.find(sides.host, name)
        # With the MAC address that the containers know the gateway by.
        bridge = bridges.ensure(sides.host, plan.bridge, undo, mac)
        if before is None:
            return f"made bridge {name}"
        told = [] if before.is_up else ["switched it on"]
        if before.is_promisc != plan.bridge.promisc:
            told.append("set promiscuous mode")
            if not plan.bridge.promisc:
                sides.host.batch([link.set_flags(name, bridge.index, off=link.IFF_PROMISC)])
        # One that others use already keeps the address that they know.
        if conf.has_gateway and mac not in {"", bridge.mac} and not link.list_links(sides.host, bridge.index):
            told.append(f"set its MAC address to {mac}")
            sides.host.batch([link.set_mac(name, bridge.index, mac)])
    return f"bridge {name}: {', '.join(told)}" if told else ""


def _host_end(plan: LinkPlan, result: Result, sides: Sides, host: Link, _undo: Undo) -> str:
    nl = sides.host
    bridge = link.get(nl, plan.bridge.name)
    told, messages = _link_changes(plan, result, host)
    if host.master != bridge.index:
        told.append(f"put it on bridge {bridge.name}")
        messages.append(link.set_master(host.name, host.index, bridge.index))
    port = kernel_bridge.Port(plan.hairpin, plan.isolated)
    is_new = host.master != bridge.index or kernel_bridge.describe_port(host) is None
    if port != (kernel_bridge.Port() if is_new else kernel_bridge.describe_port(host)):
        told.append("set hairpin mode and isolation")
        messages.append(kernel_bridge.set_port(host.name, host.index, port))
    if not is_new and not all(kernel_bridge.describe_port_flags(host).values()):
        told.append("switched learning and flooding on")
        messages.append(kernel_bridge.set_port_flags(host.name, host.index))
    messages += _vlan_changes(plan, sides, host, told, is_new=is_new)
    if not host.is_up:
        told.append("switched it on")
        messages.append(link.set_flags(host.name, host.index, on=link.IFF_UP))
    key = f"net/ipv6/conf/{host.name}/accept_ra"
    if host.name == plan.host_name and sysctl.read(key) not in {"0", None}:
        told.append("set accept_ra to 0")
        sysctl.set_if_possible(key, "0")
    if messages:
        nl.batch(messages)
        bridges.keep_mac(nl, bridge, link.get(nl, bridge.name))
    return f"{host.name}: {', '.join(told)}" if told else ""


def _link_changes(plan: LinkPlan, result: Result, host: Link) -> tuple[list[str], list[Message]]:
    told: list[str] = []
    messages: list[Message] = []
    mac = _named(result, host.name)
    if mac not in {"", host.mac}:
        told.append(f"set its MAC address to {mac}")
        messages.append(link.set_mac(host.name, host.index, mac))
    if plan.mtu not in {0, host.mtu}:
        told.append(f"set its MTU to {plan.mtu}")
        messages.append(link.set_mtu(host.name, host.index, plan.mtu))
    if host.name == plan.host_name and host.alias != plan.alias:
        told.append("set its alias")
        messages.append(link.set_alias(host.name, host.index, plan.alias))
    return told, messages


def _vlan_changes(
    plan: LinkPlan, sides: Sides, host: Link, told: list[str], *, is_new: bool
) -> list[Message]:
    if plan.vlans is None:
        return []
    present = set() if is_new else bridge_vlan.list_vlans(sides.host, host.index)
    wanted = {
        bridge_vlan.PortVlan(vid, pvid=each.pvid, untagged=each.untagged)
        for each in port_vlans(plan.vlans)
        for vid in range(each.vid, each.last + 1)
    }
    if wanted <= present:
        return []
    told.append("put it into its VLANs")
    return vlan_messages(host.name, host.index, plan.vlans)


def _container_end(plan: LinkPlan, recorded: Interface, sides: Sides, container: Link, _undo: Undo) -> str:
    name, index = container.name, container.index
    told: list[str] = []
    messages: list[Message] = []
    if recorded.mac not in {"", container.mac}:
        told.append(f"set its MAC address to {recorded.mac}")
        messages.append(link.set_mac(name, index, recorded.mac))
    if plan.is_up and not container.is_up:
        told.append("switched it on")
        messages.append(link.set_flags(name, index, on=link.IFF_UP))
    if messages:
        sides.inside.batch(messages)
    return f"{name} of the container: {', '.join(told)}" if told else ""


def _addresses(
    routes: tuple[Route, ...], ips: tuple[Ip, ...], sides: Sides, container: Link, _undo: Undo
) -> str:
    name, index = container.name, container.index
    key = f"net/ipv6/conf/{name}/disable_ipv6"
    with sides.ns.entered():
        if any(ip.address.version == 6 for ip in ips) and sysctl.read(key) == "1":
            sysctl.ensure(key, "0")
    told = [f"added {ip.address}" for ip in ips if addr.ensure(sides.inside, name, index, ip.address)]
    for wanted in check.missing_routes(routes, sides.inside):
        [complete] = complete_routes((wanted,), ips)
        route.ensure(sides.inside, name, index, complete)
        told.append(f"added the route to {wanted.dst}")
    return f"{name} of the container: {', '.join(told)}" if told else ""


def _gateway(gateway: Gateway, plan: LinkPlan, sides: Sides, host: Link, undo: Undo) -> str:
    nl = sides.host
    bridge = link.get(nl, gateway.bridge)
    if not list(check.of_gateway(gateway, bridge, nl)):
        return ""
    if gateway.vlan and plan.vlans is not None:
        vlan_gateway.ensure(nl, gateway, bridge, plan.vlans, undo)
        vlan_gateway.reattach(nl, gateway, bridge, plan.vlans)
    layer3.ensure_gateway(nl, gateway, link.get(nl, gateway.link), host.name, undo)
    return f"{gateway.link}: gave it {', '.join(map(str, gateway.addresses))} and let the host forward"


def _masquerade(conf: BridgeConf, plan: LinkPlan, ips: tuple[Ip, ...], undo: Undo) -> str:
    intent = plan_masquerade(conf, plan.owner, ips)
    if intent is None or not check.of_masquerade(conf, intent):
        return ""
    backend = select.choose(conf.ip_masq_backend, "ipmasq")
    backend.mend(intent.addresses)
    backend.add_masquerade(intent, undo)
    return f"masquerading with {backend.name}"


def _spoof_check(plan: LinkPlan, host: Link, mac: str, undo: Undo) -> str:
    if not mac:
        # Not the MAC address that the link has: the container may have set it.
        raise CniError(
            Code.MISMATCH,
            f"prevResult names no MAC address of {plan.ifname}, which the spoof check allows",
            "attach the container again: DEL, then ADD",
        )
    if not spoofcheck.differences(plan.owner, host.name, mac):
        return ""
    spoofcheck.ensure(plan.owner, host.name, mac, undo)
    return f"the MAC spoof check of {host.name}"

"""The verbs of the bridge plugin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import Code, ErrorList
from cni.marks import alias
from cni.plugin import Plugin
from cni_bridge.conf import BridgeConf
from cni_bridge.plan import (
    host_name,
    plan_addresses,
    plan_links,
    plan_owner,
    plan_result,
)

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_bridge.links import Made, Sides
    from cni_bridge.plan import AddressPlan, LinkPlan

# The modules that touch the kernel are imported by the verbs that need them.


def add(conf: BridgeConf, request: Request, undo: Undo) -> Result:
    """Attach the container to the bridge."""
    from cni.firewall import select, spoofcheck
    from cni_bridge import layer3, links

    plan = plan_links(conf, request)
    # Chosen before anything is made, as a wrong name is an error of the configuration.
    backend = select.choose_for_add(conf.ip_masq_backend, "ipmasq") if conf.has_masquerade else None
    with links.open_sides(plan.netns) as sides:
        made = links.ensure(plan, sides, undo)
        if plan.spoof_check:
            spoofcheck.ensure(plan.owner, made.host.name, made.container.mac, undo)
        if not conf.ipam.type:
            if plan.is_up:
                layer3.switch_on(sides.inside, made.container)
                links.wait_for_port(sides.host, made.host.name)
            return plan_result(plan, made.ends, None, "").with_dns(conf.dns.to_dns())
        leased = _lease(conf, request, undo)
        addresses = plan_addresses(conf, plan.owner, leased)
        layer3.configure(addresses, sides, made.container)
        vlan_mac = _ensure_gateway(plan, addresses, made, sides, undo)
        if backend is not None and addresses.masquerade is not None:
            backend.add_masquerade(addresses.masquerade, undo)
        links.wait_for_port(sides.host, made.host.name)
        layer3.announce(addresses, sides, made.container)
    dns = conf.dns.to_dns() if conf.dns.is_given() else leased.dns
    return plan_result(plan, made.ends, addresses, vlan_mac).with_dns(dns)


def _lease(conf: BridgeConf, request: Request, undo: Undo) -> Result:
    refusals: list[delegate.NothingDoneError] = []
    # Before the call, which may be cut short when IPAM has taken an address already.
    undo.add(f"release what {conf.ipam.type} gave", _release, conf, request, refusals)
    try:
        return delegate.add(conf.ipam.type, request)
    except delegate.NothingDoneError as error:
        refusals.append(error)
        raise


def _release(conf: BridgeConf, request: Request, refusals: list[delegate.NothingDoneError]) -> None:
    # An ADD that IPAM refuses has nothing to release, and what that would release may be an earlier
    # attachment's.
    if not refusals:
        delegate.delete(conf.ipam.type, request)


def _ensure_gateway(plan: LinkPlan, addresses: AddressPlan, made: Made, sides: Sides, undo: Undo) -> str:
    """Give the gateway its addresses; gives the MAC address of the VLAN's gateway link, if it has one."""
    from cni_bridge import layer3, vlan_gateway

    gateway, holder = addresses.gateway, made.bridge
    if gateway is None:
        return ""
    if gateway.vlan and plan.vlans is not None:
        holder = vlan_gateway.ensure(sides.host, gateway, made.bridge, plan.vlans, undo)
    layer3.ensure_gateway(sides.host, gateway, holder, made.host.name, undo)
    return "" if holder is made.bridge else holder.mac


def delete(conf: BridgeConf, request: Request) -> None:
    """Take the attachment away, whatever is left of it; every step is tried."""
    from cni.firewall import select, spoofcheck
    from cni.kernel.link_removal import is_early
    from cni_bridge import removal

    owner = plan_owner(conf, request)
    pair = removal.pair_of(
        request.ifname, host_name(owner), alias(conf.name, request.attachment), request.prev_result
    )
    errors = ErrorList()
    errors.attempt(partial(removal.remove, early=is_early(request.env)), pair, request.netns)
    # Where the container may be on its network still, its address is not to be given to another one.
    is_unreached = any(each.code == Code.INVALID_NETNS for each in errors.errors)
    if conf.ipam.type and not is_unreached:
        errors.attempt(delegate.delete, conf.ipam.type, request)
    if conf.macspoofchk:
        errors.attempt(spoofcheck.remove, owner)
    if conf.ip_masq:
        errors.attempt(select.remove_masquerade, owner)
    errors.raise_any()


def check(conf: BridgeConf, request: Request) -> None:
    """Compare the attachment with the result of ADD. Raises CniError 104."""
    from cni_bridge.check import check as compare

    compare(conf, request, plan_links(conf, request))


def finders(conf: BridgeConf, request: Request) -> list[Finder]:
    """Return what finds the links and rules to remove."""
    from cni_bridge import collect

    return collect.finders(conf, request.required_valid())


def status(conf: BridgeConf, request: Request) -> None:
    """Tell whether an ADD could succeed and containers have their traffic. Raises CniError 50 or 51."""
    from cni_bridge.status import status as look

    look(conf, request)


def repair(conf: BridgeConf, request: Request) -> Repaired:
    """Make again what CHECK would miss, IPAM's part too."""
    from cni_bridge.repair import repair as mend

    return mend(conf, request)


PLUGIN = Plugin(
    "bridge",
    "a veth pair between the container and a bridge",
    BridgeConf,
    add,
    delete,
    check,
    finders,
    status,
    repair=repair,
    calls_ipam=True,
)

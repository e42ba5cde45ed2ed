"""ADD: attach the container to the bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import default_route, ipam, layer3, masquerade
from cni.interface.pair import Pair, Sides, claim, create, open_sides, wait_until_up
from cni_bridge import bridges, gateways, neighbours
from cni_bridge.plan import plan_addresses, plan_links, plan_result

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_bridge.conf import BridgeConf
    from cni_bridge.plan import AddressPlan, LinkPlan


def add(conf: BridgeConf, request: Request, undo: Undo) -> Result:
    """Attach the container to the bridge."""
    plan = plan_links(conf, request)
    # Chosen before anything is made, as a wrong name is an error of the configuration.
    backend = masquerade.choose(conf)
    with open_sides(plan.pair.netns) as sides:
        bridge, pair = _make_links(plan, sides, undo)
        if not conf.ipam.type:
            _check_spoofing(plan, pair, undo)
            if plan.pair.is_up:
                layer3.switch_on(sides.inside, pair.container)
                wait_until_up(sides.host, pair.host.name)
            return plan_result(plan, bridge, pair).with_dns(ipam.dns(conf, None))
        leased = ipam.lease(conf, request, undo)
        metrics = default_route.rank(conf, sides, pair.container, undo)
        addresses = plan_addresses(conf, plan.pair.owner, leased, metrics)
        identity = neighbours.identify(plan, bridge, pair, addresses.layer3.ips, sides)
        pair = pair._replace(container=identity.container)
        _check_spoofing(plan, pair, undo)
        layer3.configure(addresses.layer3, sides, pair.container, *identity.changes)
        holder = _ensure_gateway(plan, addresses, bridge, pair, sides, undo)
        if backend is not None and addresses.masquerade is not None:
            masquerade.apply(backend, addresses.masquerade, undo)
        wait_until_up(sides.host, pair.host.name)
        neighbours.announce(identity, bridge, sides)
    return plan_result(plan, bridge, pair, addresses, holder).with_dns(ipam.dns(conf, leased))


def _make_links(plan: LinkPlan, sides: Sides, undo: Undo) -> tuple[Link, Pair]:
    """Make the bridge if there is none, and the pair; the container's end stays down."""
    with bridges.bridge_locked(plan.bridge.name):
        before = bridges.ensure(sides.host, plan.bridge, undo)
        spec = create(plan.pair, sides, undo, master=before.index)
        pair, [now] = claim(plan.pair, spec, sides, before.name)
        bridge = bridges.keep_mac(sides.host, before, now)
    bridges.set_up_port(sides.host, pair.host, plan.port)
    return bridge, pair


def _check_spoofing(plan: LinkPlan, pair: Pair, undo: Undo) -> None:
    if plan.spoof_check:
        # Only here: it imports all that speaks to nf_tables.
        from cni.firewall import spoofcheck

        spoofcheck.ensure(plan.pair.owner, pair.host.name, pair.container.mac, undo)


def _ensure_gateway(  # noqa: PLR0913, PLR0917 - all that ADD knows by then
    plan: LinkPlan, addresses: AddressPlan, bridge: Link, pair: Pair, sides: Sides, undo: Undo
) -> Link:
    """Set the gateway's addresses; return the link that has them: the bridge, or that of its VLAN."""
    gateway, holder = addresses.gateway, bridge
    if gateway is None:
        return bridge
    if gateway.vlan and plan.port.vlans is not None:
        holder = gateways.ensure_vlan_link(sides.host, gateway, bridge, plan.port.vlans, undo)
    gateways.ensure(sides.host, gateway, holder, pair.host.name, undo)
    return holder

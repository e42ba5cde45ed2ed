"""STATUS: can an ADD succeed now, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.firewall import spoofcheck, stores
from cni.interface import status as shared
from cni.interface.compare import of_host_state
from cni.kernel import bridge as kernel_bridge
from cni.kernel import link, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni.operations.status import trial
from cni_bridge import bridges, fresh
from cni_bridge.plan import Gateway, gateway_link, plan_bridge
from cni_bridge.properties import of_bridge, of_gateway, of_master

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.status import Impairment
    from cni.request import Request
    from cni_bridge.conf import BridgeConf
    from cni_bridge.plan import BridgePlan


def status(conf: BridgeConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    lock = partial(stores.check_lock, fresh.lock_path(conf.bridge))
    bridge = [partial(_try_links, plan_bridge(conf)), lock]
    spoof_check = (spoofcheck.require_working, stores.check_children) if conf.macspoofchk else ()
    steps = [*bridge, *shared.masquerade_steps(conf), *spoof_check]
    shared.report(conf, request, steps, partial(_list_impairments, conf))


def _try_links(plan: BridgePlan) -> None:
    """Create a bridge with a port in a new namespace, and look at the real bridge if there is one."""
    with Netlink() as nl:
        if bridge := link.find(nl, plan.name):
            bridges.check_kind(plan, bridge)
            bridges.check_vlan_filtering(plan, bridge)
    with trial() as nl, netns.own() as here:
        try:
            kernel_bridge.create(nl, "br", link.new_mac(), plan.mtu, vlan_filtering=plan.vlan_filtering)
        except KernelError as error:
            raise bridges.explained(error, plan) from error
        master = link.get(nl, "br").index
        veth.create(nl, veth.VethSpec("host", link.new_mac(), "eth0", link.new_mac(), here, plan.mtu, master))


def _list_impairments(conf: BridgeConf) -> Iterator[Impairment]:
    """Yield what keeps attached containers from their traffic; nothing if no container is attached."""
    name = gateway_link(conf.bridge, conf.vlan)
    with Netlink() as nl:
        links = link.list_links(nl)
        bridge = next((each for each in links if each.name == conf.bridge), None)
        ends = shared.list_ends(conf.name, links)
        # The host ends of the Go plugins have no alias.
        others = [
            each
            for each in links
            if bridge and each.kind == veth.KIND and each.master == bridge.index and each.operstate == "up"
        ]
        if not ends and not others:
            return
        if bridge is None:
            yield f"bridge {conf.bridge} is gone: its {len(ends)} containers are cut off", ""
            return
        yield from shared.impairing(of_bridge(plan_bridge(conf), bridge, nl))
        for each in ends:
            yield from shared.impairing([of_master(bridge, each), of_host_state(nl, each)])
        if conf.has_gateway:
            gateway = Gateway(name, conf.bridge, conf.vlan, (), conf.force_address, conf.enabledad)
            yield from shared.impairing(of_gateway(gateway, bridge, nl))
        versions = {each.version for each in shared.list_own_addresses(nl, name)}
    yield from shared.without_masquerade(conf, ends, versions)

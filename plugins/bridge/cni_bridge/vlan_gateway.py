"""The gateway of a VLAN: a veth pair between the host and a port of the bridge in that VLAN.

It is shared by the VLAN's containers and stays until a GC finds none of them left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import bridge as kernel_bridge
from cni.kernel import link, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni_bridge.bridges import bridge_locked, skip_duplicate_check
from cni_bridge.links import remove_veth, set_up_port
from cni_bridge.plan import VlanPlan, gateway_port_alias

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.undo import Undo
    from cni_bridge.plan import Gateway


def ensure(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan, undo: Undo) -> Link:
    """Give the host's link in the VLAN, "br0.5", made if there is none."""
    with bridge_locked(plan.bridge):
        return link.find(nl, plan.link) or _create(nl, plan, bridge, vlans, undo)


def _create(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan, undo: Undo) -> Link:
    with netns.own() as here:
        spec = veth.VethSpec(
            host_name=veth.new_host_name(),
            host_mac=link.new_mac(),
            container_name=plan.link,
            container_mac=link.new_mac(),
            netns=here,
            mtu=bridge.mtu,
            master=bridge.index,
            group=link.UNFINISHED,
        )
        undo.add(f"remove {plan.link}", _remove_unused, plan, spec.host_name, spec.host_mac)
        if not veth.create(nl, spec):
            raise CniError(
                Code.ALREADY_EXISTS, f'failed to create vlan gateway "{plan.link}": the name is taken'
            )
    skip_duplicate_check(plan.link)
    owner = link.set_owner(spec.host_name, gateway_port_alias(plan.vlan))
    [port] = link.get_all(nl, [spec.host_name], owner)
    own_vlan = VlanPlan(plan.vlan, (), vlans.keeps_default)
    set_up_port(nl, port, own_vlan, kernel_bridge.Port())
    holder = link.get(nl, plan.link)
    nl.batch([link.set_flags(holder.name, holder.index, on=link.IFF_UP)])
    return holder


def reattach(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan) -> None:
    """Put a gateway that is there back on its bridge, in its VLAN, and switch it on."""
    holder = link.get(nl, plan.link)
    port = link.find_by_index(nl, holder.local_peer) if holder.local_peer else None
    if port is None:
        raise CniError(Code.MISMATCH, f"{plan.link} leads nowhere", f"remove it: ip link del {plan.link}")
    if port.master != bridge.index:
        nl.batch([link.set_master(port.name, port.index, bridge.index)])
    nl.batch([link.set_owner(port.name, gateway_port_alias(plan.vlan))])
    own_vlan = VlanPlan(plan.vlan, (), vlans.keeps_default)
    set_up_port(nl, port, own_vlan, kernel_bridge.Port())
    nl.batch([link.set_flags(holder.name, holder.index, on=link.IFF_UP)])


def _remove_unused(plan: Gateway, port_name: str, port_mac: str) -> None:
    """Take it away again unless another container was attached meanwhile."""
    with bridge_locked(plan.bridge), Netlink() as nl:
        bridge = link.find(nl, plan.bridge)
        ports = link.list_links(nl, bridge.index) if bridge else []
        if len(ports) <= 2:
            remove_veth(port_name, port_mac)

"""The gateway: its addresses on the bridge, or on the link of a VLAN.

That link and a port of the bridge in the VLAN are a veth pair. The VLAN's containers share it, and it stays
until GC finds none of them left.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface import gateway
from cni.interface.layer3 import switch_on
from cni.interface.pair import remove_created, skip_duplicate_check
from cni.kernel import addr, link, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni_bridge.bridges import bridge_locked, set_up_port
from cni_bridge.plan import PortPlan, VlanPlan, gateway_port_alias

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.result import IpInterface
    from cni.undo import Undo
    from cni_bridge.plan import Gateway


def ensure(nl: Netlink, plan: Gateway, holder: Link, host_name: str, undo: Undo) -> None:
    """Set the gateway's addresses and make the host forward. Raise CniError 105 if `holder` has others.

    `holder` is the link that has the addresses, `host_name` the port of the container that needs the gateway.
    """
    locked = partial(bridge_locked, plan.bridge)
    remove_unused = partial(_remove_unused_address, plan, host_name)
    wanted = gateway.Addresses(plan.addresses, plan.force, plan.dad, locked, remove_unused)
    gateway.ensure(nl, holder, wanted, undo)


def _remove_unused_address(plan: Gateway, host_name: str, address: IpInterface) -> None:
    """Remove an address again unless another container may need it by now."""
    with bridge_locked(plan.bridge), Netlink() as nl:
        bridge, holder = link.find(nl, plan.bridge), link.find(nl, plan.link)
        if bridge is None or holder is None:
            return
        ports = link.list_links(nl, bridge.index)
        if all(port.name == host_name or port.index == holder.local_peer for port in ports):
            addr.remove(nl, holder.name, holder.index, address)


def ensure_vlan_link(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan, undo: Undo) -> Link:
    """Return the host's link in the VLAN, "br0.5"; make it if there is none."""
    with bridge_locked(plan.bridge):
        return link.find(nl, plan.link) or _create_vlan_link(nl, plan, bridge, vlans, undo)


def _create_vlan_link(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan, undo: Undo) -> Link:
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
        undo.add(f"remove {plan.link}", _remove_unused_link, plan, spec.host_name, spec.host_mac)
        if not veth.create(nl, spec):
            raise CniError(
                Code.ALREADY_EXISTS, f'failed to create vlan gateway "{plan.link}": the name is taken'
            )
    skip_duplicate_check(plan.link)
    owner = link.set_owner(spec.host_name, gateway_port_alias(plan.vlan))
    [port] = link.get_all(nl, [spec.host_name], owner)
    _set_up_port(nl, plan, port, vlans)
    holder = link.get(nl, plan.link)
    switch_on(nl, holder)
    return holder


def _set_up_port(nl: Netlink, plan: Gateway, port: Link, vlans: VlanPlan) -> None:
    own_vlan = VlanPlan(plan.vlan, (), vlans.keeps_default)
    set_up_port(nl, port, PortPlan(hairpin=False, isolated=False, vlans=own_vlan))


def reattach(nl: Netlink, plan: Gateway, bridge: Link, vlans: VlanPlan) -> None:
    """Put an existing gateway back on its bridge and into its VLAN, and switch it on."""
    holder = link.get(nl, plan.link)
    port = link.find_by_index(nl, holder.local_peer) if holder.local_peer else None
    if port is None:
        message = f"VLAN gateway link {plan.link} has no peer on the bridge"
        raise CniError(Code.MISMATCH, message, f"Remove it: ip link del {plan.link}")
    if port.master != bridge.index:
        nl.batch([link.set_master(port.name, port.index, bridge.index)])
    nl.batch([link.set_owner(port.name, gateway_port_alias(plan.vlan))])
    _set_up_port(nl, plan, port, vlans)
    switch_on(nl, holder)


def _remove_unused_link(plan: Gateway, port_name: str, port_mac: str) -> None:
    """Remove it again unless another container was attached meanwhile."""
    with bridge_locked(plan.bridge), Netlink() as nl:
        bridge = link.find(nl, plan.bridge)
        ports = link.list_links(nl, bridge.index) if bridge else []
        if len(ports) <= 2:
            remove_created(port_name, port_mac)

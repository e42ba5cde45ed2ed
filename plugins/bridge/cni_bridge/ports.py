"""Set up the host end as a port of the bridge: hairpin mode, isolation, VLANs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.pair import refuse_routers
from cni.kernel import bridge, bridge_vlan, link
from cni.kernel.bridge_vlan import PortVlan

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message, Netlink
    from cni_bridge.plan import PortPlan, VlanPlan

_DEFAULT_VLAN = 1


def set_up(nl: Netlink, port: Link, plan: PortPlan) -> None:
    """Set up a new port of the bridge and switch it on."""
    refuse_routers(port.name)
    up = link.set_flags(port.name, port.index, on=link.IFF_UP)
    nl.batch([*messages(port.name, port.index, plan), up])


def messages(name: str, index: int, plan: PortPlan) -> list[Message]:
    """Return what sets up a port that has just been put on the bridge."""
    settings = bridge.Port(plan.hairpin, plan.isolated)
    first = [] if settings == bridge.Port() else [bridge.set_port(name, index, settings)]
    return first if plan.vlans is None else [*first, *vlan_messages(name, index, plan.vlans)]


def vlan_messages(name: str, index: int, plan: VlanPlan) -> list[Message]:
    """Return what puts a new port into its VLANs."""
    wanted = port_vlans(plan)
    if not wanted:
        return []
    first = [] if plan.keeps_default else [bridge_vlan.remove(name, index)]
    return [*first, bridge_vlan.add(name, index, wanted)]


def port_vlans(plan: VlanPlan) -> tuple[PortVlan, ...]:
    """Return the VLANs of a port, runs of trunk VLANs as ranges; a trunk alone takes VLAN 1 untagged."""
    runs: list[PortVlan] = []
    for vid in plan.trunk:
        if runs and runs[-1].last == vid - 1:
            runs[-1] = PortVlan(runs[-1].vid, vid)
        else:
            runs.append(PortVlan(vid, vid))
    untagged = plan.pvid or (_DEFAULT_VLAN if runs else 0)
    # The untagged VLAN comes last: if the trunk has it too, the trunk does not make it tagged.
    return (*runs, PortVlan(untagged, untagged, pvid=True, untagged=True)) if untagged else ()

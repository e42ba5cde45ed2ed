"""Make and remove the veth pair, and set up the port of the bridge that its host end is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.kernel import bridge as kernel_bridge
from cni.kernel import bridge_vlan, link, netns, sysctl, veth
from cni.kernel.bridge_vlan import PortVlan
from cni.kernel.rtnetlink import Netlink
from cni_bridge import bridges
from cni_bridge.plan import Ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Message
    from cni.undo import Undo
    from cni_bridge.plan import LinkPlan, VlanPlan

_NAME_ATTEMPTS = 10
_PORT_UP_WITHIN_S = 2.5
_DEFAULT_VLAN = 1


class Made(NamedTuple):
    """The links of an attachment after they were made."""

    bridge: Link
    host: Link
    container: Link

    @property
    def ends(self) -> Ends:
        """What the result tells of them."""
        return Ends(self.bridge.mac, self.host.name, self.host.mac, self.container.mac, self.container.mtu)


class Sides(NamedTuple):
    """The host and the container: a socket in each one's namespace, and the container's namespace."""

    host: Netlink
    inside: Netlink
    ns: Netns


@contextmanager
def open_sides(path: str) -> Iterator[Sides]:
    """Open the container's namespace and reach both sides. Raises CniError 8."""
    with netns.open_netns(path) as ns, Netlink() as host, Netlink(ns) as inside:
        yield Sides(host, inside, ns)


def ensure(plan: LinkPlan, sides: Sides, undo: Undo) -> Made:
    """Make the bridge if there is none and attach the container to it; its own end stays down."""
    host = sides.host
    with bridges.bridge_locked(plan.bridge.name):
        bridge = bridges.ensure(host, plan.bridge, undo)
        spec = _create_veth(plan, sides, bridge, undo)
        # With the lock held, so that GC can tell what a killed ADD has left from what one is making.
        owner = link.set_owner(spec.host_name, plan.alias)
        now, port = link.get_all(host, [bridge.name, spec.host_name], owner)
        bridge = bridges.keep_mac(host, bridge, now)
    set_up_port(host, port, plan.vlans, kernel_bridge.Port(plan.hairpin, plan.isolated))
    return Made(bridge, port, veth.describe_container_end(port, spec) or link.get(sides.inside, plan.ifname))


def _create_veth(plan: LinkPlan, sides: Sides, bridge: Link, undo: Undo) -> veth.VethSpec:
    """Make the pair; its host end gets another name where the planned one is taken."""
    for attempt in range(_NAME_ATTEMPTS):
        spec = veth.VethSpec(
            host_name=veth.new_host_name() if attempt else plan.host_name,
            host_mac=link.new_mac(),
            container_name=plan.ifname,
            container_mac=plan.mac or link.new_mac(),
            netns=sides.ns,
            mtu=plan.mtu,
            master=bridge.index,
            group=link.UNFINISHED,
        )
        undo.add(f"remove {spec.host_name}", remove_veth, spec.host_name, spec.host_mac)
        if veth.create(sides.host, spec):
            return spec
        if link.find(sides.inside, plan.ifname):
            break
    raise CniError(
        Code.ALREADY_EXISTS,
        f'container veth name ("{plan.ifname}") peer provided ("{spec.host_name}") already exists',
        f"the namespace {plan.netns} has a link of this name already",
    )


def remove_veth(host_name: str, host_mac: str) -> None:
    """Remove a veth pair by its host end, if it has this MAC address."""
    with Netlink() as nl:
        link.remove_created(nl, host_name, host_mac)


def set_up_port(nl: Netlink, port: Link, vlans: VlanPlan | None, settings: kernel_bridge.Port) -> None:
    """Set up a new port of the bridge and switch it on."""
    # Before it is up, or the port may believe a router that the container plays.
    sysctl.set_if_possible(f"net/ipv6/conf/{port.name}/accept_ra", "0")
    messages = []
    if settings != kernel_bridge.Port():
        messages.append(kernel_bridge.set_port(port.name, port.index, settings))
    if vlans is not None:
        messages += vlan_messages(port.name, port.index, vlans)
    nl.batch([*messages, link.set_flags(port.name, port.index, on=link.IFF_UP)])


def vlan_messages(name: str, index: int, plan: VlanPlan) -> list[Message]:
    """Give what puts a new port into its VLANs."""
    wanted = port_vlans(plan)
    if not wanted:
        return []
    first = [] if plan.keeps_default else [bridge_vlan.remove(name, index)]
    return [*first, bridge_vlan.add(name, index, wanted)]


def port_vlans(plan: VlanPlan) -> tuple[PortVlan, ...]:
    """Give the VLANs of a port, runs of trunk VLANs as ranges; a trunk alone takes VLAN 1 untagged."""
    runs: list[PortVlan] = []
    for vid in plan.trunk:
        if runs and runs[-1].last == vid - 1:
            runs[-1] = PortVlan(runs[-1].vid, vid)
        else:
            runs.append(PortVlan(vid, vid))
    untagged = plan.pvid or (_DEFAULT_VLAN if runs else 0)
    # In this order: where the untagged VLAN is in the trunk too, the trunk does not make it tagged.
    return (*runs, PortVlan(untagged, untagged, pvid=True, untagged=True)) if untagged else ()


def wait_for_port(nl: Netlink, name: str) -> None:
    """Wait until the host end carries traffic. Raises CniError 100 when it does not in 2.5 s."""
    deadline = time.monotonic() + _PORT_UP_WITHIN_S
    pause_s = 0.0005
    while (state := link.get_operstate(nl, name)) != "up":
        if time.monotonic() > deadline:
            raise CniError(Code.KERNEL, f"bridge port in error state: {state}", f'it is "{name}"')
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)


def is_unfinished(found: Link) -> bool:
    """Tell whether a link is the host end of an ADD that goes on or was killed."""
    return found.kind == "veth" and found.group == link.UNFINISHED and not found.alias

"""Make the bridge and set up its ports; undo what a failed ADD has changed on the bridge.

ADDs share the bridge and its addresses, and change them under a lock of the bridge: while it is held, no
other container is being attached.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.interface.gateway import has_mac
from cni.interface.pair import refuse_routers, skip_duplicate_check
from cni.kernel import bridge as kernel_bridge
from cni.kernel import bridge_vlan, link, sysctl
from cni.kernel.bridge_vlan import PortVlan
from cni.kernel.rtnetlink import Netlink
from cni.state import files
from cni.state.lock import locked
from cni_bridge import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message
    from cni.undo import Undo
    from cni_bridge.plan import BridgePlan, PortPlan, VlanPlan

_VLAN_OPTION = "CONFIG_BRIDGE_VLAN_FILTERING"
_DEFAULT_VLAN = 1


@contextmanager
def bridge_locked(name: str) -> Iterator[None]:
    """Hold the lock of a bridge. Its file stays: another process may be waiting for it."""
    files.ensure_directory(fresh.LOCKS)
    with locked(fresh.lock_path(name)):
        yield


def ensure(nl: Netlink, plan: BridgePlan, undo: Undo, mac: str = "") -> Link:
    """Return the bridge, made and switched on if necessary. Raise CniError 105 if it is another kind of link.

    `mac` is the MAC address of a bridge that has to be made, "" for a random one.
    """
    bridge = link.find(nl, plan.name) or _create_bridge(nl, plan, undo, mac)
    check_kind(plan, bridge)
    check_vlan_filtering(plan, bridge)
    wanted = link.IFF_UP | (link.IFF_PROMISC if plan.promisc else 0)
    if missing := wanted & ~bridge.flags:
        ports = _port_names(nl, bridge)
        undo.add(f"switch flags of {plan.name} off", _restore_flags, plan.name, missing, ports)
        nl.batch([link.set_flags(plan.name, bridge.index, on=missing)])
    return bridge


def check_kind(plan: BridgePlan, bridge: Link) -> None:
    """Raise CniError 105 if a link of another kind has the bridge's name."""
    if bridge.kind != "bridge":
        raise CniError(
            Code.ALREADY_EXISTS,
            f'failed to create bridge "{plan.name}": "{plan.name}" already exists but is not a bridge',
            f'it is a link of kind "{bridge.kind or "device"}"; name another one in "bridge"',
        )


def check_vlan_filtering(plan: BridgePlan, bridge: Link) -> None:
    """Raise CniError 105 if the bridge does not filter VLANs although the configuration needs it."""
    if plan.vlan_filtering and not kernel_bridge.describe(bridge).vlan_filtering:
        raise CniError(
            Code.ALREADY_EXISTS,
            f'bridge "{plan.name}" exists without VLAN filtering, so that vlan and vlanTrunk have no effect',
            f"switch it on with: ip link set {plan.name} type bridge vlan_filtering 1 "
            f"(needs a kernel with {_VLAN_OPTION})",
        )


def _create_bridge(nl: Netlink, plan: BridgePlan, undo: Undo, mac: str) -> Link:
    own_mac = mac or link.new_mac()
    undo.add(f"remove bridge {plan.name}", _remove_unused_bridge, plan.name, own_mac)
    try:
        is_new = kernel_bridge.create(nl, plan.name, own_mac, plan.mtu, vlan_filtering=plan.vlan_filtering)
    except KernelError as error:
        raise explained(error, plan) from error
    bridge = link.get(nl, plan.name)
    if is_new:
        sysctl.set_if_possible(f"net/ipv6/conf/{plan.name}/accept_ra", "0")
        skip_duplicate_check(plan.name)
        # With the address of an earlier bridge it gets that one's containers.
        fresh.mark(bridge) if not mac else fresh.forget(bridge.name)
    return bridge


def explained(error: KernelError, plan: BridgePlan) -> KernelError:
    """Return the error with the kernel option whose absence explains it."""
    if error.errno != errno.EOPNOTSUPP:
        return error
    option = _VLAN_OPTION if plan.vlan_filtering else "CONFIG_BRIDGE"
    doing = f'could not add "{plan.name}"'
    return KernelError(doing, error.errno, error.said, f"the kernel was built without {option}")


def _remove_unused_bridge(name: str, mac: str) -> None:
    with bridge_locked(name), Netlink() as nl:
        bridge = link.find(nl, name)
        if bridge and not _port_names(nl, bridge):
            link.remove_created(nl, name, mac)
            fresh.forget(name)


def keep_mac(nl: Netlink, bridge: Link, now: Link) -> Link:
    """Restore the MAC address of a bridge if a new port has changed it, as happens with bridges made by hand.

    Return the bridge with its address. A bridge without ports may have none: the Go plugins leave it so, and
    the kernel then takes that of the port.
    """
    if not has_mac(bridge) or now.mac == bridge.mac:
        return now
    nl.batch([link.set_mac(bridge.name, bridge.index, bridge.mac)])
    return bridge


def _port_names(nl: Netlink, bridge: Link) -> set[str]:
    return {port.name for port in link.list_links(nl, bridge.index)}


def _restore_flags(name: str, flags: int, ports: set[str]) -> None:
    """Switch flags off again unless a container that may need them was attached since."""
    with bridge_locked(name), Netlink() as nl:
        bridge = link.find(nl, name)
        if bridge and _port_names(nl, bridge) <= ports:
            nl.batch([link.set_flags(name, bridge.index, off=flags)])


def set_up_port(nl: Netlink, port: Link, plan: PortPlan) -> None:
    """Set up a new port of the bridge and switch it on."""
    refuse_routers(port.name)
    up = link.set_flags(port.name, port.index, on=link.IFF_UP)
    nl.batch([*port_messages(port.name, port.index, plan), up])


def port_messages(name: str, index: int, plan: PortPlan) -> list[Message]:
    """Return what sets up a port that has just been put on the bridge."""
    settings = kernel_bridge.Port(plan.hairpin, plan.isolated)
    first = [] if settings == kernel_bridge.Port() else [kernel_bridge.set_port(name, index, settings)]
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

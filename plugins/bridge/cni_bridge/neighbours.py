"""The MAC address of the container's end, and the addresses that ADD announces.

An announcement goes to all ports of the bridge: with 1,000 of them it takes twice as long as the rest of ADD.
It is for neighbours who remember an earlier container with the address. A MAC address that is derived from
the IPv4 address needs none if each earlier container had it, too. That is so on a bridge that ADD has made,
with two exceptions: a MAC address was requested, or another program attaches containers to the bridge. The
host's table of neighbours shows the first, as ADD writes it there, and the second for containers that have
spoken to the host.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cni.interface import layer3
from cni.interface.plan import derived_mac
from cni.kernel import link, neigh
from cni_bridge import fresh

if TYPE_CHECKING:
    from cni.interface.pair import Pair, Sides
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message
    from cni.result import Ip
    from cni_bridge.plan import LinkPlan


class Identity(NamedTuple):
    """The container's end with its final MAC address, what sets that, and the addresses to announce."""

    container: Link
    changes: tuple[Message, ...]
    announced: tuple[Ip, ...]


def identify(plan: LinkPlan, bridge: Link, pair: Pair, ips: tuple[Ip, ...], sides: Sides) -> Identity:
    """Choose the MAC address of the container's end, which has the requested one or a random one so far."""
    own = pair.container
    derived_from = next((ip for ip in ips if ip.address.version == 4), None)
    if plan.pair.mac or derived_from is None:
        return Identity(own, (), ips)
    address = derived_from.address.ip
    [host], known = link.find_all(sides.host, [pair.host.name], neigh.look_up(bridge.index, address))
    # IPAM may have switched the link on and used it, as DHCP does. Then a server knows its MAC address.
    if host is None or host.has_carrier:
        return Identity(own, (), ips)
    mac = derived_mac(address)
    # A port in a VLAN has its gateway, and so its entry in the host's table, on another link.
    is_known = plan.port.vlans is None and fresh.is_marked(bridge) and neigh.shown_mac(known) in {"", mac}
    announced = tuple(ip for ip in ips if ip is not derived_from) if is_known else ips
    return Identity(replace(own, mac=mac), (link.set_mac(own.name, own.index, mac),), announced)


def announce(identity: Identity, bridge: Link, sides: Sides) -> None:
    """Announce addresses; let the host remember those that do not have the derived MAC address."""
    if not identity.announced:
        return
    own = identity.container
    layer3.announce(identity.announced, sides, own)
    if not identity.changes:
        layer3.remember(sides.host, bridge.index, identity.announced, own.mac)

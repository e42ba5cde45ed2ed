"""GC: find what belongs to attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface.collect import host_ends, list_stale_ends, rules, spoof_checks, unfinished_ends
from cni.kernel import bridge as kernel_bridge
from cni.kernel import bridge_vlan, link
from cni.kernel.rtnetlink import Netlink
from cni.operations.garbage import Removal, Stale
from cni_bridge.bridges import bridge_locked
from cni_bridge.plan import gateway_link, gateway_port_alias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.kernel.bridge_vlan import PortVlan
    from cni.kernel.link import Link
    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_bridge.conf import BridgeConf


def finders(conf: BridgeConf, request: Request) -> list[Finder]:
    """Return the finders; links come first, since later finders depend on them."""
    valid = request.required_valid()
    return [
        partial(host_ends, conf.name, valid),
        partial(unfinished_ends, conf.name, partial(bridge_locked, conf.bridge), partial(_find_bridge, conf)),
        partial(_gateways, conf, valid),
        partial(spoof_checks, conf.name, valid),
        partial(rules, conf.name, valid),
    ]


def _find_bridge(conf: BridgeConf, nl: Netlink) -> int | None:
    bridge = link.find(nl, conf.bridge)
    return bridge.index if bridge else None


def _gateways(conf: BridgeConf, valid: frozenset[Attachment]) -> Iterator[Removal]:
    """Find the gateway links of VLANs in which the bridge has no other port."""
    for each, vid in _unused_gateways(conf, valid):
        reason = f"bridge {conf.bridge} has no other port in VLAN {vid}"
        stale = Stale("VLAN gateway", each.name, conf.name, reason=reason)
        yield Removal((stale,), partial(_remove_unused_gateway, conf, valid, each.name))


def _unused_gateways(conf: BridgeConf, valid: frozenset[Attachment]) -> list[tuple[Link, int]]:
    with Netlink() as nl:
        bridge = link.find(nl, conf.bridge)
        if bridge is None or not kernel_bridge.describe(bridge).vlan_filtering:
            return []
        links, vlans = link.list_links(nl), bridge_vlan.list_all(nl)
    going = {each.index for each in list_stale_ends(conf.name, valid, links)}
    ports = [each for each in links if each.master == bridge.index and each.index not in going]
    return list_unused_gateways(conf, links, ports, vlans)


def list_unused_gateways(
    conf: BridgeConf, links: Sequence[Link], ports: Sequence[Link], vlans: Mapping[int, set[PortVlan]]
) -> list[tuple[Link, int]]:
    """List the gateway links, each with its VLAN, whose own port is the only one in the VLAN. Pure."""
    unused = []
    for each in links:
        own = next((port for port in ports if port.index == each.local_peer), None)
        vid = _vlan_of(conf, each, own) if own else 0
        others = [port.index for port in ports if port is not own]
        if vid and not any(entry.vid == vid for index in others for entry in vlans.get(index, ())):
            unused.append((each, vid))
    return unused


def _vlan_of(conf: BridgeConf, holder: Link, port: Link) -> int:
    """Return the VLAN whose gateway a link is, 0 for another link; Go's have no alias but the name."""
    digits = holder.name.removeprefix(f"{conf.bridge}.")
    if holder.kind != "veth" or digits == holder.name or not (digits.isascii() and digits.isdigit()):
        return 0
    vid = int(digits)
    is_ours = vid == conf.vlan or port.alias == gateway_port_alias(vid)
    return vid if is_ours and holder.name == gateway_link(conf.bridge, vid) else 0


def _remove_unused_gateway(conf: BridgeConf, valid: frozenset[Attachment], name: str) -> None:
    # Checked again: ADD makes the port of a container first and then, under this lock, the gateway.
    with bridge_locked(conf.bridge):
        if any(each.name == name for each, _ in _unused_gateways(conf, valid)):
            with Netlink() as nl:
                link.remove(nl, name)

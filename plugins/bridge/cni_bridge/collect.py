"""What GC finds of attachments that are no longer valid, and takes away."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select, spoofcheck
from cni.kernel import bridge as kernel_bridge
from cni.kernel import bridge_vlan, link
from cni.kernel.rtnetlink import Netlink
from cni.marks import alias, alias_prefix, attachment_of
from cni.operations.garbage import Removal, Stale
from cni_bridge.bridges import bridge_locked
from cni_bridge.links import is_unfinished
from cni_bridge.plan import gateway_link, gateway_port_alias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.kernel.bridge_vlan import PortVlan
    from cni.kernel.link import Link
    from cni.operations.garbage import Finder
    from cni.request import Attachment
    from cni_bridge.conf import BridgeConf


def finders(conf: BridgeConf, valid: frozenset[Attachment] | None) -> list[Finder]:
    """Give the finders, in this order: links first, as what is said of them is looked at by the others.

    Rules are looked for whatever the configuration says now: it may have been another one at ADD.
    """
    if valid is None:
        return []
    return [
        partial(_host_ends, conf, valid),
        partial(_unfinished_ends, conf),
        partial(_gateways, conf, valid),
        partial(_spoof_checks, conf, valid),
        partial(_rules, conf.name, valid),
    ]


def _stale_host_ends(conf: BridgeConf, valid: frozenset[Attachment], links: list[Link]) -> list[Link]:
    prefix = alias_prefix(conf.name)
    kept = {alias(conf.name, each) for each in valid}
    return [
        each
        for each in links
        if each.kind == "veth" and each.alias.startswith(prefix) and each.alias not in kept
    ]


def _list_links() -> list[Link]:
    with Netlink() as nl:
        return link.list_links(nl)


def _host_ends(conf: BridgeConf, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for each in _stale_host_ends(conf, valid, _list_links()):
        owner = attachment_of(each.alias, conf.name)
        thing = Stale("link", each.name, conf.name)
        if owner:
            thing = thing._replace(container_id=owner.container_id, ifname=owner.ifname)
        yield Removal((thing,), partial(_remove_host_end, each.name, each.alias))


def _remove_host_end(name: str, told: str) -> None:
    with Netlink() as nl:
        found = link.find(nl, name)
        if found and found.alias == told:
            link.remove(nl, name, found.index)


def _unfinished_ends(conf: BridgeConf) -> Iterator[Removal]:
    """Find what was left by those that were killed when they had made a pair and not yet said whose it is."""
    for each in _list_unfinished(conf):
        thing = Stale("link", each.name, conf.name, reason="who made it was killed on the way")
        yield Removal((thing,), partial(_remove_unfinished, conf, each))


def _list_unfinished(conf: BridgeConf) -> list[Link]:
    """List the ends that nobody is working at: while the bridge is locked, nobody is."""
    if not _see_unfinished(conf):
        return []
    with bridge_locked(conf.bridge):
        return _see_unfinished(conf)


def _see_unfinished(conf: BridgeConf) -> list[Link]:
    with Netlink() as nl:
        bridge = link.find(nl, conf.bridge)
        return [each for each in link.list_links(nl, bridge.index) if is_unfinished(each)] if bridge else []


def _remove_unfinished(conf: BridgeConf, found: Link) -> None:
    # The MAC address is random: a link that has got the name and the index since is another one.
    with bridge_locked(conf.bridge), Netlink() as nl:
        now = link.find_by_index(nl, found.index)
        if now and now.mac == found.mac and is_unfinished(now):
            link.remove(nl, now.name, now.index)


def _gateways(conf: BridgeConf, valid: frozenset[Attachment]) -> Iterator[Removal]:
    """Find gateway links of VLANs in which the bridge has no port any more."""
    for each, vid in _unused_gateways(conf, valid):
        reason = f"bridge {conf.bridge} has no other port in VLAN {vid}"
        yield Removal(
            (Stale("VLAN gateway", each.name, conf.name, reason=reason),),
            partial(_remove_unused_gateway, conf, valid, each.name),
        )


def _unused_gateways(conf: BridgeConf, valid: frozenset[Attachment]) -> list[tuple[Link, int]]:
    with Netlink() as nl:
        bridge = link.find(nl, conf.bridge)
        if bridge is None or not kernel_bridge.describe(bridge).vlan_filtering:
            return []
        links, vlans = link.list_links(nl), bridge_vlan.list_all(nl)
    going = {each.index for each in _stale_host_ends(conf, valid, links)}
    ports = [each for each in links if each.master == bridge.index and each.index not in going]
    return list_unused_gateways(conf, links, ports, vlans)


def list_unused_gateways(
    conf: BridgeConf, links: Sequence[Link], ports: Sequence[Link], vlans: Mapping[int, set[PortVlan]]
) -> list[tuple[Link, int]]:
    """List gateway links, each with its VLAN, whose VLAN no port of the bridge is in but their own. Pure."""
    found = []
    for each in links:
        own = next((port for port in ports if port.index == each.local_peer), None)
        vid = _vlan_of(conf, each, own) if own else 0
        others = [port.index for port in ports if port is not own]
        if vid and not any(entry.vid == vid for index in others for entry in vlans.get(index, ())):
            found.append((each, vid))
    return found


def _vlan_of(conf: BridgeConf, holder: Link, port: Link) -> int:
    """Give the VLAN whose gateway the link is, 0 for another link: Go's have no alias, but our name."""
    digits = holder.name.removeprefix(f"{conf.bridge}.")
    if holder.kind != "veth" or digits == holder.name or not (digits.isascii() and digits.isdigit()):
        return 0
    vid = int(digits)
    is_ours = vid == conf.vlan or port.alias == gateway_port_alias(vid)
    return vid if is_ours and holder.name == gateway_link(conf.bridge, vid) else 0


def _remove_unused_gateway(conf: BridgeConf, valid: frozenset[Attachment], name: str) -> None:
    # Looked at again: a container's ADD makes its port first and then, under this lock, the gateway.
    with bridge_locked(conf.bridge):
        if any(each.name == name for each, _ in _unused_gateways(conf, valid)):
            with Netlink() as nl:
                link.remove(nl, name)


def _spoof_checks(conf: BridgeConf, valid: frozenset[Attachment]) -> Iterator[Removal]:
    links = _list_links()
    going = {each.name for each in _stale_host_ends(conf, valid, links)}
    for owner in spoofcheck.list_stale(valid, [each for each in links if each.name not in going]):
        name = f"bridge {spoofcheck.TABLE} {spoofcheck.chain_name(owner)}"
        thing = Stale("nftables chain", name, "", owner.container_id, owner.ifname)
        yield Removal((thing,), partial(spoofcheck.remove, owner))


def _rules(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    if found := select.stale(network, valid):
        yield Removal(tuple(found), partial(select.collect, network, valid))

"""STATUS: whether an ADD could work now, and whether running containers still have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import KernelError
from cni.firewall import probe, spoofcheck, stores
from cni.firewall.intents import Owner
from cni.kernel import addr, link, netns, sysctl, veth
from cni.kernel import bridge as kernel_bridge
from cni.kernel.rtnetlink import Netlink
from cni.marks import alias_prefix, attachment_of
from cni.operations.status import Reasons, trial
from cni_bridge import bridges
from cni_bridge.plan import (
    FORWARDING,
    gateway_link,
    host_name,
    plan_bridge,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.operations.status import Impairment
    from cni.request import Request
    from cni.result import IpInterface
    from cni_bridge.conf import BridgeConf
    from cni_bridge.plan import BridgePlan


def status(conf: BridgeConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    reasons = Reasons()
    reasons.attempt(_try_links, plan_bridge(conf))
    reasons.attempt(stores.check_lock, bridges.lock_path(conf.bridge))
    if conf.has_masquerade:
        reasons.attempt(probe.try_out, conf.ip_masq_backend, "ipmasq")
        reasons.attempt(stores.check, conf.ip_masq_backend, "ipmasq")
    if conf.macspoofchk:
        reasons.attempt(spoofcheck.try_out)
        reasons.attempt(stores.check_children)
    if conf.ipam.type:
        reasons.attempt(delegate.status, conf.ipam.type, request)
    reasons.attempt(reasons.limit, partial(_list_impairments, conf))
    reasons.raise_any()


def _try_links(plan: BridgePlan) -> None:
    """Make a bridge with a port elsewhere and for a moment; look at the real one if it is there."""
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
    """Tell what keeps containers that are attached from their traffic; nothing where none is."""
    with Netlink() as nl:
        links = link.list_links(nl)
        bridge = next((each for each in links if each.name == conf.bridge), None)
        # Those of the Go plugins have no alias. One whose other end is down is just being attached.
        ours = [each for each in links if each.alias.startswith(alias_prefix(conf.name))]
        ends = [each for each in ours if each.operstate == "up" or not each.is_up]
        others = [
            each
            for each in links
            if bridge and each.kind == "veth" and each.master == bridge.index and each.operstate == "up"
        ]
        if not ends and not others:
            return
        if bridge is None:
            yield f"bridge {conf.bridge} is gone: its {len(ends)} containers are cut off", ""
            return
        yield from _of_bridge(bridge, ends)
        addresses = _gateway_addresses(conf, nl)
        if conf.has_gateway:
            yield from _of_gateway(conf, nl, addresses)
    if conf.has_masquerade:
        yield from _of_masquerade(conf, ends, {each.version for each in addresses})


def _of_bridge(bridge: Link, ends: list[Link]) -> Iterator[Impairment]:
    if not bridge.is_up:
        yield f"bridge {bridge.name} is down", ""
    for each in ends:
        if each.master != bridge.index:
            yield f"links of containers are not ports of bridge {bridge.name}", each.name
        if not each.is_up:
            yield "links of containers are down", each.name


def _gateway_addresses(conf: BridgeConf, nl: Netlink) -> list[IpInterface]:
    holder = link.find(nl, gateway_link(conf.bridge, conf.vlan))
    return [each.address for each in addr.list_addrs(nl, holder.index) if each.is_global] if holder else []


def _of_gateway(conf: BridgeConf, nl: Netlink, addresses: list[IpInterface]) -> Iterator[Impairment]:
    name = gateway_link(conf.bridge, conf.vlan)
    holder = link.find(nl, name)
    if holder is None:
        yield f"the gateway's link {name} is gone", ""
    elif not addresses:
        yield f"{name} has lost the gateway's addresses", ""
    if holder and not holder.is_up and name != conf.bridge:
        yield f"the gateway's link {name} is down", ""
    for version in sorted({each.version for each in addresses}):
        if sysctl.read(FORWARDING[version]) != "1":
            yield f"this host does not forward IPv{version}: sysctl {FORWARDING[version]} is not 1", ""


def _of_masquerade(conf: BridgeConf, ends: list[Link], versions: set[int]) -> Iterator[Impairment]:
    from cni.firewall import installed

    owners = [owner for each in ends if (owner := _owner_of(conf.name, each))]
    for each in installed.without_masquerade(owners, versions):
        yield "masquerading is gone of", f"{each.container_id} {each.ifname}"


def _owner_of(network: str, end: Link) -> Owner | None:
    """Give whose host end it is; None where the alias has but the hash of a container ID."""
    attachment = attachment_of(end.alias, network)
    owner = Owner(network, attachment.container_id, attachment.ifname) if attachment else None
    return owner if owner and host_name(owner) == end.name else None

"""STATUS of interface plugins: can an ADD succeed, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.firewall import installed, probe, stores
from cni.firewall.intents import MASQUERADE, Owner
from cni.interface.masquerade import FEATURE
from cni.interface.plan import host_name
from cni.kernel import addr, link, netns, veth
from cni.marks import alias_prefix, attachment_of
from cni.operations.properties import list_impairments
from cni.operations.status import Reasons, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cni.conf import NetConf
    from cni.interface.conf import MasqueradeConf
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.operations.properties import Property
    from cni.operations.status import Impairment
    from cni.request import Request
    from cni.result import IpInterface


def report(
    conf: NetConf,
    request: Request,
    steps: Iterable[Callable[[], object]],
    look: Callable[[], Iterable[Impairment]],
) -> None:
    """Raise CniError 50 or 51 with every reason.

    `steps` raise CniError if an ADD could not succeed; the IPAM plugin is asked after them. `look` yields
    what keeps attached containers from their traffic.
    """
    reasons = Reasons()
    for step in steps:
        reasons.attempt(step)
    if conf.ipam.type:
        reasons.attempt(delegate.status, conf.ipam.type, request)
    reasons.attempt(reasons.limit, look)
    reasons.raise_any()


def masquerade_steps(conf: MasqueradeConf) -> list[Callable[[], object]]:
    """Return the steps that raise CniError if an ADD could not masquerade."""
    tries = (probe.require_working, stores.check) if conf.has_masquerade else ()
    return [partial(each, conf.ip_masq_backend, FEATURE) for each in tries]


def try_pair(mtu: int) -> None:
    """Raise CniError if the kernel cannot create a veth pair: one is created in a new namespace."""
    with trial() as nl, netns.own() as here:
        veth.create(nl, veth.VethSpec("host", link.new_mac(), "eth0", link.new_mac(), here, mtu))


def list_ends(network: str, links: Iterable[Link]) -> list[Link]:
    """List the host ends of attached containers; the Go plugins mark none.

    A host end that is up while its other end is down belongs to an ADD that is not done yet.
    """
    ours = [each for each in links if each.alias.startswith(alias_prefix(network))]
    return [each for each in ours if each.operstate == "up" or not each.is_up]


def list_own_addresses(nl: Netlink, name: str) -> list[IpInterface]:
    """List the addresses of a link of the host, without link-local ones; [] if there is no such link."""
    holder = link.find(nl, name)
    return [each.address for each in addr.list_addrs(nl, holder.index) if each.is_global] if holder else []


def impairing(properties: Iterable[Property]) -> Iterator[Impairment]:
    """Yield the differences that impair traffic: those of properties with an `impairment`."""
    yield from list_impairments(each for each in properties if each.impairment)


def without_masquerade(
    conf: MasqueradeConf, ends: list[Link], versions: Collection[int]
) -> Iterator[Impairment]:
    """Yield the attachments whose masquerade is gone, for host ends of `list_ends`."""
    masqueraded = [each for each in versions if each in conf.masqueraded_versions]
    if conf.has_masquerade and (masqueraded or not versions):
        owners = [owner for each in ends if (owner := _owner_of(conf.name, each))]
        for each in installed.without(owners, MASQUERADE, masqueraded):
            yield "masquerading is gone of", f"{each.container_id} {each.ifname}"


def _owner_of(network: str, end: Link) -> Owner | None:
    """Return the owner of a host end; None if the alias has only the hash of a container ID."""
    attachment = attachment_of(end.alias, network)
    owner = Owner(network, attachment.container_id, attachment.ifname) if attachment else None
    return owner if owner and host_name(owner) == end.name else None

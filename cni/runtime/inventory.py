"""List attachments from the result cache, leases and the kernel. Changes nothing.

It finds the attachments of every runtime that keeps its results in libcni's default folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from cni.ipam.leases import Leases
from cni.kernel.rtnetlink import Netlink
from cni.runtime import remains
from cni.runtime.network import bridges, subnets
from cni.runtime.observe import Attached, HostLink, find_host_link, observe

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.runtime.cache import Entry
    from cni.runtime.network import Network


@dataclass(frozen=True, slots=True)
class Inventory:
    """A network with its attachments; `file` is "" if no file configures it."""

    name: str
    cni_version: str = ""
    file: str = ""
    subnets: tuple[str, ...] = ()
    bridges: tuple[HostLink, ...] = ()
    attached: tuple[Attached, ...] = ()
    warnings: tuple[str, ...] = ()


def take(
    networks: Sequence[Network],
    entries: Sequence[Entry],
    leases_folder: Path,
    things: Mapping[str, Sequence[Stale]] = MappingProxyType({}),
) -> list[Inventory]:
    """Return every network that is configured or has attachments, by name.

    Must run in the host's network namespace, single-threaded. If the kernel refuses to show a link, the
    attachment gets a problem; no error is raised. If two files configure one network, the first counts.
    `things` are, by network, the objects that plugins report of attachments that are not in `entries`.
    """
    configured = {each.name: each for each in reversed(networks)}
    names = sorted({*configured, *(each.network for each in entries)})
    with Netlink() as host:
        return [
            _take_one(
                host,
                configured.get(name) or name,
                [each for each in entries if each.network == name],
                list_leased(
                    leases_folder / name, {each.attachment for each in entries if each.network == name}
                ),
                things.get(name, ()),
            )
            for name in names
        ]


def _take_one(
    host: Netlink,
    network: Network | str,
    entries: Sequence[Entry],
    leased: Sequence[Attached],
    things: Sequence[Stale],
) -> Inventory:
    attached = [observe(host, entry) for entry in entries]
    attached += remains.add_to(host, leased, things)
    masters = {each.host_link.master for each in attached if each.host_link and each.host_link.master}
    if isinstance(network, str):
        return Inventory(
            network,
            bridges=tuple(find_host_link(host, each) for each in sorted(masters)),
            attached=tuple(attached),
        )
    names = dict.fromkeys([*bridges(network), *sorted(masters)])
    return Inventory(
        network.name,
        network.cni_version,
        network.file,
        tuple(subnets(network)),
        tuple(find_host_link(host, each) for each in names),
        tuple(attached),
    )


def list_leased(folder: Path, known: Collection[Attachment]) -> list[Attached]:
    """Return the owners of leases that are not in `known`: no result of theirs is cached."""
    addresses_of: dict[Attachment, list[str]] = {}
    containers = {each.container_id for each in known}
    for lease in Leases(folder).list_all():
        # A lease without an ifname has the old format and belongs to all attachments of its container.
        is_known = lease.attachment in known or (not lease.ifname and lease.container_id in containers)
        if lease.address and not lease.is_empty() and not is_known:
            addresses_of.setdefault(lease.attachment, []).append(lease.name)
    return [
        Attached(
            owner.container_id,
            owner.ifname,
            addresses=tuple(sorted(addresses)),
            problems=(remains.UNCACHED,),
        )
        for owner, addresses in sorted(addresses_of.items())
    ]

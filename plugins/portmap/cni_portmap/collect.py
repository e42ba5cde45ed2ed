"""What GC finds of attachments that are no longer valid, and takes away."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select
from cni.hostports import ledger
from cni.operations.garbage import Removal, Stale
from cni_portmap.apply import flush_connections, remove_published

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni.firewall.intents import PortMapping
    from cni.operations.garbage import Finder
    from cni.request import Attachment


def finders(network: str, valid: frozenset[Attachment] | None) -> list[Finder]:
    """Give what finds ports to take back; without a list of valid attachments there are none."""
    return [] if valid is None else [partial(_claimed, network, valid), partial(_rules, network, valid)]


def _claimed(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for owner in ledger.list_invalid(network, valid):
        things = tuple(
            Stale("host port", _show(mapping), network, owner.container_id, owner.ifname)
            for mapping in ledger.list_held(owner)
        )
        yield Removal(things, partial(remove_published, owner, ()))


def _show(mapping: PortMapping) -> str:
    port = f"{mapping.host_port}/{mapping.protocol}"
    return f"{port} on {mapping.host_ip}" if mapping.host_ip else port


def _rules(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    """Find what the ledger does not know: rules of the Go plugin, or of before a crash."""
    if found := select.stale(network, valid):
        mappings = [mapping for each in found for mapping in each.mappings]
        yield Removal(tuple(found), partial(_remove_rules, network, valid, mappings))


def _remove_rules(network: str, valid: Collection[Attachment], mappings: list[PortMapping]) -> None:
    try:
        select.collect(network, valid)
    finally:
        flush_connections(mappings)

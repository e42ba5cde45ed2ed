"""GC: withdraw the ports of attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select
from cni.hostports import ledger
from cni.operations.garbage import Removal, Stale
from cni_portmap.delete import flush_connections, release, remove_published

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni.firewall.intents import PortMapping
    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_portmap.conf import PortmapConf


def finders(conf: PortmapConf, request: Request) -> list[Finder]:
    """Return the finders: first the ports of the ledger, then rules that the ledger does not know."""
    valid = request.required_valid()
    return [partial(_claimed, conf.name, valid), partial(_rules, conf.name, valid)]


def _claimed(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    # The rules of all links of a container may be in one chain. `_rules` removes those of no valid link.
    living = {each.container_id for each in valid}
    for owner in ledger.list_invalid(network, valid):
        things = tuple(
            Stale("host port", _show(mapping), network, owner.container_id, owner.ifname)
            for mapping in ledger.list_held(owner)
        )
        step = release if owner.container_id in living else remove_published
        yield Removal(things, partial(step, owner))


def _show(mapping: PortMapping) -> str:
    port = f"{mapping.host_port}/{mapping.protocol}"
    return f"{port} on {mapping.host_ip}" if mapping.host_ip else port


def _rules(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    """Yield rules that the ledger does not know: those of the Go plugin, and those from before a crash."""
    if found := select.stale(network, valid):
        mappings = [mapping for each in found for mapping in each.mappings]
        yield Removal(tuple(found), partial(_remove_rules, network, valid, mappings))


def _remove_rules(network: str, valid: Collection[Attachment], mappings: list[PortMapping]) -> None:
    try:
        select.collect(network, valid)
    finally:
        flush_connections(mappings)

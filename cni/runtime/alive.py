"""Which attachments of a network are alive, also those whose runtime keeps its results elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import marks
from cni.hostports import ledger
from cni.operations import holders
from cni.request import Attachment
from cni.runtime.gc_plan import plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network


def list_alive(runtime: Runtime, network: Network) -> set[Attachment]:
    """Return the attachments that are not proven to be gone; changes nothing. Raises CniError.

    Of those without a cached result a host end proves life that has the attachment's alias and leads to a
    namespace in use, or a record of host ports whose namespace is not proven to be gone.
    """
    entries = [each for each in runtime.cache.list_entries() if each.network == network.name]
    gone = {each.attachment for each in entries if holders.is_proven_gone(each.sandbox, each.result)}
    alive = {each.attachment for each in entries} - gone
    alive |= {Attachment(each.container_id, each.ifname) for each in ledger.list_placed(network.name)} - gone
    marked = holders.list_marked(network.name)
    return alive | _list_marked(runtime, network, marked, alive)


def _list_marked(
    runtime: Runtime, network: Network, marked: Iterable[str], known: set[Attachment]
) -> set[Attachment]:
    """Return the attachments that the aliases of host ends name and that are not `known`."""
    unknown = set(marked) - {marks.alias(network.name, each) for each in known}
    found = {each for alias in unknown if (each := marks.attachment_of(alias, network.name))}
    if any(map(marks.may_be_hashed, found)):
        # An alias has no room for a long container ID. What the plugins keep of the attachment names it.
        owners = (Attachment(each.container_id, each.ifname) for each in plan(runtime, network, known).things)
        found |= {each for each in owners if marks.alias(network.name, each) in unknown}
    return found

"""List the attachments of a network that are alive, including those of runtimes with another result cache."""

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
    """Return the attachments that are not proven to be gone. Changes nothing. Raises CniError.

    An attachment without a cached result is alive if a host end has its alias and leads to a namespace in
    use, or if the port ledger has its namespace and that is not proven to be gone.
    """
    entries = [each for each in runtime.cache.list_entries() if each.network == network.name]
    gone = {each.attachment for each in entries if holders.is_proven_gone(each.sandbox, each.result)}
    alive = {each.attachment for each in entries} - gone
    alive |= {Attachment(each.container_id, each.ifname) for each in ledger.list_placed(network.name)} - gone
    marked = holders.list_marked(network.name)
    marked -= {marks.alias(network.name, each) for each in gone}
    return alive | _list_marked(runtime, network, marked, alive)


def _list_marked(
    runtime: Runtime, network: Network, marked: Iterable[str], known: set[Attachment]
) -> set[Attachment]:
    """Return the attachments that the aliases of host ends name, without those in `known`."""
    unknown = set(marked) - {marks.alias(network.name, each) for each in known}
    attachments = {each for alias in unknown if (each := marks.attachment_of(alias, network.name))}
    if any(map(marks.may_be_hashed, attachments)):
        # An alias has a hash of a long container ID. The plugins' other objects have the ID itself.
        owners = (Attachment(each.container_id, each.ifname) for each in plan(runtime, network, known).things)
        attachments |= {each for each in owners if marks.alias(network.name, each) in unknown}
    return attachments

"""What lies on the host of attachments that no result is cached of: their ADD failed, or still runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cni.kernel import link, veth
from cni.operations import holders
from cni.request import Attachment
from cni.runtime.gc_plan import is_owner, plan
from cni.runtime.observe import Attached, find_host_link

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.kernel.rtnetlink import Netlink
    from cni.operations.garbage import Stale
    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.gc_plan import GcPlan
    from cni.runtime.network import Network

UNCACHED = "no result is cached: its ADD failed or still runs, or its runtime keeps results elsewhere"


def ask(runtime: Runtime, network: Network, entries: Sequence[Entry]) -> GcPlan:
    """Return what the network's plugins have of attachments that are not among `entries`. Raises CniError."""
    own = [each for each in entries if each.network == network.name]
    found = plan(runtime, network, {each.attachment for each in own})
    things = [
        each for each in found.things if each.container_id and not any(is_owner(entry, each) for entry in own)
    ]
    return replace(found, things=tuple(things))


def add_to(host: Netlink, leased: Iterable[Attached], things: Iterable[Stale]) -> list[Attached]:
    """Return the attachments without a result: the owners of leases and those of other things."""
    found = {(each.container_id, each.ifname): each for each in leased}
    unnamed = []
    for thing in things:
        if not thing.ifname:
            unnamed.append(thing)
            continue
        owner = found.setdefault((thing.container_id, thing.ifname), _unknown(thing))
        found[thing.container_id, thing.ifname] = _with(host, owner, thing)
    for thing in unnamed:
        # A chain of iptables does not tell the ifname: it belongs to the container's first link.
        key = next((key for key in sorted(found) if key[0] == thing.container_id), (thing.container_id, ""))
        found[key] = _with(host, found.setdefault(key, _unknown(thing)), thing)
    return [found[key] for key in sorted(found)]


def _unknown(thing: Stale) -> Attached:
    owner = Attachment(thing.container_id, thing.ifname)
    return Attached(owner.container_id, owner.ifname, problems=(UNCACHED,))


def _with(host: Netlink, attached: Attached, thing: Stale) -> Attached:
    name = thing.name.rpartition("/")[2] if thing.kind in {"lease", "file"} else thing.name
    if thing.kind == "link":
        found = link.find(host, thing.name)
        is_alive = found is not None and veth.is_other_end_alive(host, found)
        attached = replace(
            attached,
            host_link=find_host_link(host, thing.name),
            netns_state=holders.ALIVE if is_alive else attached.netns_state,
        )
    return replace(attached, remains=(*attached.remains, f"{thing.kind} {name}"))

"""Find objects on the host of attachments without a cached result: their ADD failed, or still runs."""

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
    """Return the objects that plugins have of attachments that are not in `entries`. Raises CniError."""
    own = [each for each in entries if each.network == network.name]
    gc_plan = plan(runtime, network, {each.attachment for each in own})
    things = [
        each
        for each in gc_plan.things
        if each.container_id and not any(is_owner(entry, each) for entry in own)
    ]
    return replace(gc_plan, things=tuple(things))


def add_to(host: Netlink, leased: Iterable[Attached], things: Iterable[Stale]) -> list[Attached]:
    """Return the attachments without a result: the owners of leases and of other objects."""
    owners = {(each.container_id, each.ifname): each for each in leased}
    unnamed = []
    for thing in things:
        if not thing.ifname:
            unnamed.append(thing)
            continue
        owner = owners.setdefault((thing.container_id, thing.ifname), _unknown(thing))
        owners[thing.container_id, thing.ifname] = _with(host, owner, thing)
    for thing in unnamed:
        # The name of an iptables chain does not contain the ifname: assign it to the container's first link.
        key = next((key for key in sorted(owners) if key[0] == thing.container_id), (thing.container_id, ""))
        owners[key] = _with(host, owners.setdefault(key, _unknown(thing)), thing)
    return [owners[key] for key in sorted(owners)]


def _unknown(thing: Stale) -> Attached:
    owner = Attachment(thing.container_id, thing.ifname)
    return Attached(owner.container_id, owner.ifname, problems=(UNCACHED,))


def _with(host: Netlink, attached: Attached, thing: Stale) -> Attached:
    name = thing.name.rpartition("/")[2] if thing.kind in {"lease", "file"} else thing.name
    if thing.kind == "link":
        host_end = link.find(host, thing.name)
        is_alive = host_end is not None and veth.is_other_end_alive(host, host_end)
        attached = replace(
            attached,
            host_link=find_host_link(host, thing.name),
            netns_state=holders.ALIVE if is_alive else attached.netns_state,
        )
    return replace(attached, remains=(*attached.remains, f"{thing.kind} {name}"))

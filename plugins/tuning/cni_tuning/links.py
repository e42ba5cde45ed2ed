"""The container's interface, and its host end if it is one end of a veth pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.plan import host_name, recorded_host_end
from cni.kernel import link, veth
from cni_tuning.plan import Attributes

if TYPE_CHECKING:
    from cni.firewall.intents import Owner
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message
    from cni.result import Result


def find_host_end(sides: Sides, result: Result, owner: Owner, inside: Link) -> Link | None:
    """Return the host end of the container's interface if it is a veth pair's, else None.

    It has the name that this suite chooses, or it comes right before the interface in the result. The host's
    side must prove that it leads there: the container chooses what its own interface reports.
    """
    if inside.kind != veth.KIND:
        return None
    recorded = result.container_interface(inside.name)
    end = recorded_host_end(result, recorded) if recorded else None
    names = dict.fromkeys([host_name(owner), *([end.name] if end else [])])
    return veth.find(sides.host, [*names], sides.ns).end_of(inside)


def present(holder: Link, attributes: Attributes) -> Attributes:
    """Return the link's present values of those attributes that are not None."""
    values = Attributes(
        mac=holder.mac,
        mtu=holder.mtu,
        promisc=holder.is_promisc,
        allmulti=bool(holder.flags & link.IFF_ALLMULTI),
        queue_length=holder.queue_length,
    )
    pairs = zip(values, attributes, strict=True)
    return Attributes._make(value if asked is not None else None for value, asked in pairs)


def changes(holder: Link, attributes: Attributes) -> list[Message]:
    """Return the messages that give a link the attributes which it does not have yet."""
    name, index = holder.name, holder.index
    now = present(holder, attributes)
    messages = []
    if attributes.mtu is not None and attributes.mtu != now.mtu:
        messages.append(link.set_mtu(name, index, attributes.mtu))
    if attributes.mac is not None and attributes.mac != now.mac:
        messages.append(link.set_mac(name, index, attributes.mac))
    flags = (
        (link.IFF_PROMISC, attributes.promisc, now.promisc),
        (link.IFF_ALLMULTI, attributes.allmulti, now.allmulti),
    )
    for flag, wanted, current in flags:
        if wanted is not None and wanted != current:
            messages.append(link.set_flags(name, index, on=flag * wanted, off=flag * (not wanted)))
    if attributes.queue_length is not None and attributes.queue_length != now.queue_length:
        messages.append(link.set_queue_length(name, index, attributes.queue_length))
    return messages

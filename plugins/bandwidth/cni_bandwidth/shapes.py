"""A limit as queueing disciplines of one link: a token bucket, or an htb if there are named subnets.

The numbers are those of the Go plugin, which wraps the time of a burst at 32 bits. The htb is that of the Go
plugin's releases with subnets: 1:30 has the limit, 1:1 has none. It compares the peer's address, where Go
compares the destination, which is the container's own address for what the container receives.
"""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.kernel import tc
from cni.kernel.tc import HtbClass, Key, Tbf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message, Netlink
    from cni.result import IpNetwork
    from cni_bandwidth.plan import Shape

_LIMITED, _UNLIMITED = 0x30, 1
_UNCAPPED_RATE = 100_000_000_000
# Of an Ethernet packet of the usual size.
_PACKET_BYTES = 1514
_LARGEST = 0xFFFFFFFF
_NS_PER_TICK = 64
# By IP version: EtherType, priority, and where the source and the destination are in the header.
_FAMILIES = {4: (tc.ETH_P_IP, 16, 12, 16), 6: (tc.ETH_P_IPV6, 15, 8, 24)}
# The discipline that Linux gives a link itself has the handle 0:.
_OURS = {"tbf", "htb"}


def bucket(shape: Shape) -> Tbf:
    """Return the token bucket of a limit.

    If the wrapped burst has no room for a packet although the burst has, the longest time is taken.
    """
    wanted = Tbf.from_burst(shape.rate, shape.burst, shape.latency_us)
    room = wanted.buffer * _NS_PER_TICK * shape.rate // 10**9
    if room < _PACKET_BYTES <= shape.burst:
        return wanted._replace(buffer=_LARGEST)
    return wanted


def messages(holder: Link, shape: Shape) -> list[Message]:
    """Return the messages that limit what a link sends; refused with EEXIST if it has a root."""
    name, index = holder.name, holder.index
    wanted = bucket(shape)
    if not shape.subnets:
        return [tc.add_tbf(name, index, wanted)]
    default = _UNLIMITED if shape.limits_named else _LIMITED
    limited, unlimited = _classes(shape)
    added = [
        tc.add_htb(name, index, default),
        tc.add_class(name, index, limited, wanted.buffer),
        tc.add_class(name, index, unlimited),
    ]
    for classid, keys, priority, protocol in _filters(shape):
        added.append(tc.add_class_filter(name, index, classid, keys, priority=priority, protocol=protocol))
    return added


def _classes(shape: Shape) -> tuple[HtbClass, HtbClass]:
    root = tc.ROOT
    return (
        HtbClass(tc.handle(1, _LIMITED), root, shape.rate, shape.rate),
        HtbClass(tc.handle(1, _UNLIMITED), root, _UNCAPPED_RATE, _UNCAPPED_RATE),
    )


def _filters(shape: Shape) -> list[tuple[int, tuple[Key, ...], int, int]]:
    """Return class, comparisons, priority and protocol of the filter of each subnet."""
    classid = tc.handle(1, _LIMITED if shape.limits_named else _UNLIMITED)
    found = []
    for subnet in shape.subnets:
        protocol, priority, source, destination = _FAMILIES[subnet.version]
        offset = source if shape.peer_is_source else destination
        found.append((classid, _keys(subnet, offset), priority, protocol))
    return found


def _keys(subnet: IpNetwork, offset: int) -> tuple[Key, ...]:
    """Compare the words of an address whose bits the prefix has."""
    address, mask = subnet.network_address.packed, subnet.netmask.packed
    words = [
        Key(int.from_bytes(address[at : at + 4]), int.from_bytes(mask[at : at + 4]), offset + at)
        for at in range(0, len(mask), 4)
    ]
    return tuple(each for each in words if each.mask) or (Key(0, 0, 0),)


def differences(nl: Netlink, holder: Link, shape: Shape) -> str:
    """Return what differs from a limit on a link, "" for nothing. The texts are those of the Go plugin."""
    present = tc.find_qdisc(nl, holder.name, holder.index)
    if present is None:
        return "Failed to find qdisc"
    if not shape.subnets:
        return _compare_bucket(present.tbf, bucket(shape))
    if present.kind != "htb":
        return f"qdisc is {present.kind}, not htb"
    if sorted(tc.list_classes(nl, holder.name, holder.index)) != sorted(_classes(shape)):
        return "Rate doesn't match"
    listed = tc.list_filters(nl, holder.name, holder.index, tc.handle(1))
    wanted = Counter((classid, keys, protocol) for classid, keys, _, protocol in _filters(shape))
    if Counter((each.classid, each.keys, each.protocol) for each in listed) != wanted:
        return "subnets don't match"
    return ""


def _compare_bucket(present: Tbf | None, wanted: Tbf) -> str:
    if present is None:
        return "Failed to find qdisc"
    for field in Tbf._fields:
        if getattr(present, field) != getattr(wanted, field):
            return f"{field.capitalize()} doesn't match"
    return ""


def limit(nl: Netlink, holder: Link, shape: Shape) -> None:
    """Limit what a link sends, in place of a limit that an ADD which was killed has left.

    Raise CniError 105 if another program has given the link a root.
    """
    if _send(nl, messages(holder, shape)):
        return
    if not remove_limit(nl, holder):
        raise CniError(
            Code.ALREADY_EXISTS,
            f'create qdisc: file exists: "{holder.name}" has a qdisc of another program',
            f"Remove it with: tc qdisc del dev {holder.name} root",
        )
    nl.batch(messages(holder, shape))


def remove_limit(nl: Netlink, holder: Link) -> bool:
    """Remove a limit of a link; return False, and remove nothing, if its root is another program's."""
    present = tc.find_qdisc(nl, holder.name, holder.index)
    if present is None:
        return True
    if present.kind not in _OURS or present.handle != tc.handle(1):
        return False
    tc.remove_qdisc(nl, holder.name, holder.index)
    return True


def _send(nl: Netlink, wanted: Sequence[Message]) -> bool:
    """Send messages in order, none after one that is refused; return False if the first one exists."""
    try:
        nl.batch(wanted[:1])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise explained(error) from error
    try:
        nl.batch(wanted[1:])
    except KernelError as error:
        raise explained(error) from error
    return True


def explained(error: KernelError) -> CniError:
    """Return the error of the kernel, with the remedy if it lacks a module."""
    if error.errno != errno.ENOENT:
        return error
    return CniError(
        error.code,
        f"{error.msg}: the kernel has no such kind",
        "Load or build the modules sch_tbf, sch_htb, sch_ingress, cls_u32, act_mirred and ifb.",
    )

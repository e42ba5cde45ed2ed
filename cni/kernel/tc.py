"""Traffic control of a link: queueing disciplines, classes and filters, tc(8).

Rates are in bytes per second, sizes in bytes. All messages are packed and read by struct: pyroute2's
classes for them take 20 ms and 2.5 MB of each warm server, import logging, and know no rates of 64 bits.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, nest, number, shown_number, shown_text, text
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
INGRESS_HANDLE = 0xFFFF0000
# struct tcmsg and the attributes, <linux/rtnetlink.h>
_HEAD = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_KIND, _OPTIONS = 1, 2
_ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x3, 0x800, 0x86DD
# <linux/pkt_sched.h>: struct tc_ratespec has the rate at its end; tc_tbf_qopt two of them, limit, buffer, MTU
_TBF_PARMS, _TBF_RATE64 = 1, 4
_TBF = struct.Struct("=8xI8xIIII")
_HTB_PARMS, _HTB_INIT, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION, _HTB_RATE_TO_QUANTUM = 3, 10
_HTB_GLOBAL = struct.Struct("=IIIII")  # version, rate to quantum, default class, debug, direct packets
_HTB_CLASS = struct.Struct(
    "=8xI8xIIIIII"
)  # rate, ceiling, buffer, ceiling's buffer, quantum, level, priority
# <linux/pkt_cls.h>: struct tc_u32_sel, tc_u32_key; <linux/tc_act/tc_mirred.h>: struct tc_mirred
_U32_CLASSID, _U32_SEL, _U32_ACT = 1, 5, 7
_U32_TERMINAL = 1
_U32_HEAD = struct.Struct("=BBBxHHhhI")
_U32_KEY = struct.Struct(">II4s4s")
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_MIRRED = struct.Struct(
    "=IIiiiiI"
)  # index, capabilities, action, 2 counts, what is done, the other link's index
_STOLEN, _EGRESS_REDIRECT = 4, 1
_LARGEST = 0xFFFFFFFF
_US_PER_S = 1_000_000
_PSCHED = "/proc/net/psched"


class Tbf(NamedTuple):
    """A token bucket filter. `buffer` is the burst as the time that it takes, in the kernel's ticks."""

    rate: int
    buffer: int
    limit: int

    @classmethod
    def from_burst(cls, rate: int, burst: int, latency_us: int) -> Tbf:
        """Return the filter for a burst; a packet waits for `latency_us` at most.

        Numbers wrap at 32 bits, as in the Go plugins: for a burst of 4 GiB the kernel would refuse others.
        """
        duration_us = int(burst * _US_PER_S / rate) & _LARGEST
        buffer = int(duration_us * _ticks_per_us()) & _LARGEST
        limit = (int(rate * latency_us / _US_PER_S) + burst) & _LARGEST
        return cls(rate, buffer, limit)


class Qdisc(NamedTuple):
    """A queueing discipline as the kernel shows it; `tbf` is None for another kind."""

    kind: str
    handle: int
    parent: int
    tbf: Tbf | None


class HtbClass(NamedTuple):
    """A class of an htb: it may send at `rate`, and at `ceil` while others send less than theirs."""

    handle: int
    parent: int
    rate: int
    ceil: int


class Key(NamedTuple):
    """Comparison of a u32 filter: the 4 bytes at `offset` of the network header, with the bits in `mask`."""

    value: int
    mask: int
    offset: int


class Filter(NamedTuple):
    """A filter as the kernel shows it. `redirected_to` is the index of a link, 0 unless it redirects.

    `protocol` is the EtherType of the packets that it reads, `keys` are its comparisons.
    """

    kind: str
    priority: int
    classid: int
    redirected_to: int
    protocol: int = 0
    keys: tuple[Key, ...] = ()


def handle(major: int, minor: int = 0) -> int:
    """Return the number for what tc(8) writes as "1:30", both parts hexadecimal there."""
    return major << 16 | minor


def add_tbf(name: str, index: int, tbf: Tbf) -> Message:
    """Shape what a link sends, as its root with the handle 1:; refused with EEXIST if it has a root."""
    parms = attribute(_TBF_PARMS, _TBF.pack(min(tbf.rate, _LARGEST), 0, tbf.limit, tbf.buffer, 0))
    wide = attribute(_TBF_RATE64, tbf.rate.to_bytes(8, "little")) if tbf.rate > _LARGEST else b""
    return _add_qdisc(name, index, "tbf", (ROOT, handle(1)), parms + wide)


def add_htb(name: str, index: int, default: int) -> Message:
    """Add an htb, which has classes, as the root 1:; `default` is the default class's minor number."""
    init = _HTB_GLOBAL.pack(_HTB_VERSION, _HTB_RATE_TO_QUANTUM, default, 0, 0)
    return _add_qdisc(name, index, "htb", (ROOT, handle(1)), attribute(_HTB_INIT, init))


def add_ingress(name: str, index: int) -> Message:
    """Allow filters for what a link receives; refused with EEXIST if it has that."""
    return _add_qdisc(name, index, "ingress", (INGRESS, INGRESS_HANDLE), b"")


def remove_qdisc(nl: Netlink, name: str, index: int, parent: int = ROOT) -> bool:
    """Remove a root or `INGRESS`, with classes and filters; return False if there is none, or no link."""
    body = _HEAD.pack(0, index, 0, parent, 0)
    message = Message(f'could not remove a qdisc of "{name}"', rtnetlink.RTM_DELQDISC, body=body)
    try:
        nl.batch([message])
    except KernelError as error:
        # EINVAL and ENOENT: the link has the default one only, or none at all.
        if error.errno in {errno.ENOENT, errno.EINVAL, errno.ENODEV}:
            return False
        raise
    return True


def find_qdisc(nl: Netlink, name: str, index: int, parent: int = ROOT) -> Qdisc | None:
    """Return the root of a link, or what is `INGRESS`; None if there is only the default one, or no link.

    The kernel lists those of all links that were added: it answers no question for a single one.
    """
    message = Message(f'look up a qdisc of "{name}"', rtnetlink.RTM_GETQDISC, body=_HEAD.pack(0, 0, 0, 0, 0))
    return next(
        (each for payload in nl.dump(message) if (each := _parse_qdisc(payload, index, parent))), None
    )


def add_class(name: str, index: int, cls: HtbClass, buffer: int = 0) -> Message:
    """Add a class to the htb of a link.

    `buffer` is its burst, as that of a `Tbf`; 0 is what it may send in a hundredth of a second.
    """
    buffers = [
        buffer or Tbf.from_burst(rate, max(rate // 100, 1600), 0).buffer for rate in (cls.rate, cls.ceil)
    ]
    rates = [min(rate, _LARGEST) for rate in (cls.rate, cls.ceil)]
    options = attribute(_HTB_PARMS, _HTB_CLASS.pack(*rates, *buffers, 0, 0, 0))
    for kind, rate in ((_HTB_RATE64, cls.rate), (_HTB_CEIL64, cls.ceil)):
        options += attribute(kind, rate.to_bytes(8, "little")) if rate > _LARGEST else b""
    return _add(
        f'could not add a class to "{name}"',
        rtnetlink.RTM_NEWTCLASS,
        _HEAD.pack(0, index, cls.handle, cls.parent, 0) + text(_KIND, "htb") + nest(_OPTIONS, options),
    )


def list_classes(nl: Netlink, name: str, index: int) -> list[HtbClass]:
    """List the classes of the htb of a link; [] if it has none."""
    body = _HEAD.pack(0, index, 0, 0, 0)
    message = Message(f'list the classes of "{name}"', rtnetlink.RTM_GETTCLASS, body=body)
    return [each for payload in nl.dump(message) if (each := _parse_class(payload))]


def add_redirect(name: str, index: int, target: int, parent: int = INGRESS_HANDLE) -> Message:
    """Redirect all packets at `parent` to the link with index `target`, which sends them; priority 1."""
    mirred = attribute(_MIRRED_PARMS, _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, target))
    action = nest(1, text(_ACT_KIND, "mirred"), nest(_ACT_OPTIONS, mirred))
    options = _match([Key(0, 0, 0)], handle(1, 1)) + nest(_U32_ACT, action)
    return _add_filter(name, index, parent, 1, options)


def add_class_filter(  # noqa: PLR0913 - the parts of a filter
    name: str, index: int, classid: int, keys: Sequence[Key], *, priority: int = 1, protocol: int = _ETH_P_ALL
) -> Message:
    """Put packets of a protocol that all `keys` match into a class of the link's root 1:.

    Filters of one priority have one protocol. Without keys every packet matches.
    """
    options = _match(keys or [Key(0, 0, 0)], classid)
    return _add_filter(name, index, handle(1), priority, options, protocol)


def list_filters(nl: Netlink, name: str, index: int, parent: int = INGRESS_HANDLE) -> list[Filter]:
    """List the filters at `parent` of a link that classify or redirect; [] if it has none."""
    body = _HEAD.pack(0, index, 0, parent, 0)
    message = Message(f'list the filters of "{name}"', rtnetlink.RTM_GETTFILTER, body=body)
    try:
        payloads = nl.dump(message)
    except KernelError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL, errno.ENODEV}:
            return []
        raise
    return [each for payload in payloads if (each := _parse_filter(payload))]


def _add_qdisc(name: str, index: int, kind: str, place: tuple[int, int], options: bytes) -> Message:
    parent, own = place
    body = _HEAD.pack(0, index, own, parent, 0) + text(_KIND, kind)
    # Kinds without settings refuse an empty nest.
    body += nest(_OPTIONS, options) if options else b""
    return _add(f'could not add qdisc {kind} to "{name}"', rtnetlink.RTM_NEWQDISC, body)


def _add_filter(  # noqa: PLR0913, PLR0917 - the parts of a filter
    name: str, index: int, parent: int, priority: int, options: bytes, protocol: int = _ETH_P_ALL
) -> Message:
    info = priority << 16 | socket.htons(protocol)
    body = _HEAD.pack(0, index, 0, parent, info) + text(_KIND, "u32") + nest(_OPTIONS, options)
    return _add(f'could not add a filter to "{name}"', rtnetlink.RTM_NEWTFILTER, body)


def _add(doing: str, kind: int, body: bytes) -> Message:
    return Message(doing, kind, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL, body=body)


def _match(keys: Sequence[Key], classid: int) -> bytes:
    head = _U32_HEAD.pack(_U32_TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    packed = [
        _U32_KEY.pack(each.mask, each.value & each.mask, struct.pack("=i", each.offset), bytes(4))
        for each in keys
    ]
    return number(_U32_CLASSID, classid) + attribute(_U32_SEL, head + b"".join(packed))


def _parse_qdisc(payload: bytes, index: int, parent: int) -> Qdisc | None:
    _, of_link, own, above, _ = _HEAD.unpack_from(payload)
    if (of_link, above) != (index, parent):
        return None
    shown = attributes(payload[_HEAD.size :], {_KIND, _OPTIONS})
    kind = shown_text(shown.get(_KIND, b""))
    if not own:
        # The default one of a link that has a queue, as pfifo_fast.
        return None
    return Qdisc(kind, own, above, _parse_tbf(shown.get(_OPTIONS, b"")) if kind == "tbf" else None)


def _parse_tbf(options: bytes) -> Tbf | None:
    shown = attributes(options)
    if len(shown.get(_TBF_PARMS, b"")) < _TBF.size:
        return None
    rate, _, limit, buffer, _ = _TBF.unpack_from(shown[_TBF_PARMS])
    return Tbf(shown_number(shown.get(_TBF_RATE64, b"")) or rate, buffer, limit)


def _parse_class(payload: bytes) -> HtbClass | None:
    _, _, own, parent, _ = _HEAD.unpack_from(payload)
    options = attributes(attributes(payload[_HEAD.size :], {_OPTIONS}).get(_OPTIONS, b""))
    if len(options.get(_HTB_PARMS, b"")) < _HTB_CLASS.size:
        return None
    rate, ceil, *_ = _HTB_CLASS.unpack_from(options[_HTB_PARMS])
    wide_rate, wide_ceil = (shown_number(options.get(each, b"")) for each in (_HTB_RATE64, _HTB_CEIL64))
    return HtbClass(own, parent, wide_rate or rate, wide_ceil or ceil)


def _parse_filter(payload: bytes) -> Filter | None:
    """Read one filter; None for what else a dump has, as the hash tables of u32."""
    _, _, _, _, info = _HEAD.unpack_from(payload)
    shown = attributes(payload[_HEAD.size :], {_KIND, _OPTIONS})
    options = attributes(shown.get(_OPTIONS, b""))
    if _U32_SEL not in options:
        return None
    actions = attributes(options.get(_U32_ACT, b""))
    targets = [_parse_redirect(each) for each in actions.values()]
    classid = shown_number(options.get(_U32_CLASSID, b""))
    kind, target = shown_text(shown.get(_KIND, b"")), next(filter(None, targets), 0)
    keys = tuple(_parse_keys(options[_U32_SEL]))
    return Filter(kind, info >> 16, classid, target, socket.ntohs(info & 0xFFFF), keys)


def _parse_keys(selector: bytes) -> Iterator[Key]:
    for place in range(_U32_HEAD.size, len(selector) - _U32_KEY.size + 1, _U32_KEY.size):
        mask, value, offset, _ = _U32_KEY.unpack_from(selector, place)
        yield Key(value, mask, *struct.unpack("=i", offset))


def _parse_redirect(action: bytes) -> int:
    shown = attributes(action)
    parms = attributes(shown.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS, b"")
    if shown_text(shown.get(_ACT_KIND, b"")) != "mirred" or len(parms) < _MIRRED.size:
        return 0
    *_, eaction, target = _MIRRED.unpack_from(parms)
    return int(target) if eaction == _EGRESS_REDIRECT else 0


@lru_cache(maxsize=1)
def _ticks_per_us() -> float:
    """Return the kernel's ticks in a microsecond: 15.625 on all current machines."""
    ticks, per, clock, _ = (int(word, 16) for word in Path(_PSCHED).read_text(encoding="ascii").split())
    return ticks / per * (clock / _US_PER_S)

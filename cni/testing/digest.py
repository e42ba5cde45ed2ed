"""A digest of what a snapshot shows of a namespace: as long as the digest is the same, so is the snapshot.

Programs that print links, routes and rules take 15 ms of CPU for a host, and most tests compare a host with
its state before. The digest has the kernel's own messages, which have all that these programs print, without
attributes that change by themselves. It may change when the snapshot does not, but not the other way round.
"""

from __future__ import annotations

import errno
import re
import shutil
import socket
import struct
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# netlink(7): protocols, flags and types of messages.
_ROUTE, _NETFILTER = 0, 12
_REQUEST, _REQUEST_DUMP, _INTERRUPTED = 0x1, 0x301, 0x10
_ERROR, _DONE = 2, 3
_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_PROGRAMS = ("ip", "nft", "iptables-nft-save", "ip6tables-nft-save")
_PASSING = {errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ENOENT}
_LARGEST = 1 << 16
# rtnetlink(7): what lists links, addresses and routes, and the request for links without their statistics.
_GET_LINKS, _GET_ADDRESSES, _GET_ROUTES = 18, 22, 26
_WITHOUT_STATS = bytes(16) + struct.pack("=HHI", 8, 29, 9)
# <linux/netfilter/nf_tables.h>, <linux/netfilter/nfnetlink_conntrack.h>: what lists objects of nftables, the
# elements of a set, and what counts connections.
_GET_TABLES, _GET_SETS, _GET_ELEMENTS = (10 << 8 | kind for kind in (1, 10, 13))
_GET_OTHERS = [10 << 8 | kind for kind in (4, 7, 19, 23)]
_ELEMENTS = 3
_COUNT_CONNECTIONS = 1 << 8 | 5
_CONNECTIONS = 1
_RULE_COUNTER = re.compile(
    rb"\x0c\0\x01\0counter\0\x1c\0\x02[\0\x80]\x0c\0\x01\0.{8}\x0c\0\x02\0.{8}", re.DOTALL
)
_CHAIN_COUNTERS = 8

# Attributes that change by themselves: <linux/if_link.h>. The snapshot does not have them either.
# Statistics, state, carrier and its changes, counts of who needs all frames.
_VOLATILE_LINK = {7, 16, 23, 30, 33, 35, 47, 48, 61}
_AF_SPEC, _LINK_INFO, _INFO_DATA, _INFO_SLAVE_DATA = 26, 18, 2, 5
# How link-local addresses are made is the only setting of IPv6 that a snapshot has.
_INET6, _VOLATILE_INET6 = 10, {1, 2, 3, 4, 5, 6}
# Root, own identifier and timers of a bridge; state, root, bridge and timers of a port.
_VOLATILE_BRIDGE = {10, 11, 16, 17, 18, 19}
_VOLATILE_PORT = {1, 13, 14, 21, 22, 23}
# IFF_RUNNING and IFF_LOWER_UP follow the carrier.
_VOLATILE_FLAGS = 0x10040
# <linux/if_addr.h>: lifetimes, and "tentative" among the flags.
_ADDRESS, _LOCAL, _LIFETIMES, _ADDRESS_FLAGS, _TENTATIVE = 1, 2, 6, 8, 0x40
# <linux/rtnetlink.h>: the table of local addresses, routes that the kernel derives, lifetimes.
_LOCAL_TABLE, _KERNEL, _DERIVED, _VOLATILE_ROUTE = 255, 2, {2, 3, 4, 5}, {12, 23}
_DESTINATION = 1
_LINK_LOCAL = bytes.fromhex("fe80") + bytes(14)


class _InterruptedError(Exception):
    """Something was changed while the kernel listed it."""


class _Kernel:
    """A netlink socket in the network namespace of this process."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = _REQUEST_DUMP) -> Iterator[bytes]:
        """Yield the responses' payloads: those of a listing, or one."""
        self._socket.send(_HEADER.pack(16 + len(body), kind, flags, 1, 0) + body)
        while True:
            data = self._socket.recv(_LARGEST)
            at = 0
            while at < len(data):
                length, answer, answer_flags, _, _ = _HEADER.unpack_from(data, at)
                if answer_flags & _INTERRUPTED:
                    raise _InterruptedError
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (number,) = struct.unpack_from("=i", data, at + 16)
                    if -number in _PASSING:
                        raise _InterruptedError
                    # A kernel that lacks the kind of object lists none.
                    yield data[at + 16 : at + 20]
                    return
                yield data[at + 16 : at + length]
                at += length + 3 & ~3
            if flags == _REQUEST:
                return


def of_namespace() -> bytes:
    """Return the digest of this network namespace; b"" where it cannot replace a snapshot.

    That is so while something changes it, and for rules of the legacy variant of iptables.
    """
    legacy = [Path("/proc/thread-self/net", name) for name in ("ip_tables_names", "ip6_tables_names")]
    if any(path.exists() and path.read_bytes() for path in legacy):
        return b""
    with ExitStack() as stack:
        route, netfilter = (stack.enter_context(closing(_Kernel(each))) for each in (_ROUTE, _NETFILTER))
        try:
            listed = [
                sorted(map(_link, route.ask(_GET_LINKS, _WITHOUT_STATS))),
                sorted(map(_address, route.ask(_GET_ADDRESSES, bytes(8)))),
                sorted(map(_route, route.ask(_GET_ROUTES, bytes(12)))),
                *_rules(netfilter),
            ]
        except _InterruptedError:
            return b""
    # A snapshot shows no rules where a test has hidden the programs.
    programs = [str(shutil.which(program)).encode() for program in _PROGRAMS]
    digest = blake2b(digest_size=16)
    for part in (part for parts in (programs, *listed) for part in (*parts, b"")):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def tracks_connections() -> bool:
    """Return whether connection tracking has an entry in this namespace: to list them takes 2 ms."""
    with closing(_Kernel(_NETFILTER)) as kernel:
        (answer,) = kernel.ask(_COUNT_CONNECTIONS, bytes(4), _REQUEST)
        return dict(_attributes(answer, 4)).get(_CONNECTIONS) != bytes(4)


def _attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield attributes as kind and payload."""
    end, unpack = len(data) - 3, _ATTRIBUTE.unpack_from
    while at < end:
        length, kind = unpack(data, at)
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + 3 & ~3


def _without(data: bytes, kinds: Collection[int], at: int = 0) -> bytes:
    """Return attributes in an unambiguous form, all but some."""
    return b"".join(_packed(kind, value) for kind, value in _attributes(data, at) if kind not in kinds)


def _packed(kind: int, value: bytes) -> bytes:
    return struct.pack("=HI", kind, len(value)) + value


def _link(message: bytes) -> bytes:
    kind, index, flags = struct.unpack_from("=xxHiI", message)
    parts = [struct.pack("=HiI", kind, index, flags & ~_VOLATILE_FLAGS)]
    for number, value in _attributes(message, 16):
        if number in _VOLATILE_LINK:
            continue
        shown = value
        if number == _AF_SPEC:
            shown = b"".join(
                _packed(family, _without(each, _VOLATILE_INET6) if family == _INET6 else each)
                for family, each in _attributes(value)
            )
        elif number == _LINK_INFO:
            shown = _link_info(value)
        parts.append(_packed(number, shown))
    return b"".join(parts)


def _link_info(info: bytes) -> bytes:
    of_kind = dict(_attributes(info))
    parts = []
    for number, value in of_kind.items():
        is_settings = number in {_INFO_DATA, _INFO_SLAVE_DATA}
        is_of_bridge = is_settings and of_kind.get(number - 1, b"").rstrip(b"\0") == b"bridge"
        volatile = _VOLATILE_BRIDGE if number == _INFO_DATA else _VOLATILE_PORT
        parts.append(_packed(number, _without(value, volatile) if is_of_bridge else value))
    return b"".join(parts)


def _address(message: bytes) -> bytes:
    # The flags in the header are the first 8 of those in the attribute.
    family, prefix, _, scope, index = struct.unpack_from("=BBBBI", message)
    of_kind = dict(_attributes(message, 8))
    (flags,) = struct.unpack("=I", of_kind.get(_ADDRESS_FLAGS, bytes(4)))
    local = of_kind.get(_LOCAL, of_kind[_ADDRESS])
    if family == socket.AF_INET6 and local[:8] == _LINK_LOCAL[:8] and local[11:13] == b"\xff\xfe":
        return b""
    head = struct.pack("=BBBII", family, prefix, scope, index, flags & ~_TENTATIVE)
    return head + _without(message, {_LIFETIMES, _ADDRESS_FLAGS}, 8)


def _route(message: bytes) -> bytes:
    table, protocol, _, kind = struct.unpack_from("=BBBB", message, 4)
    if table == _LOCAL_TABLE or (protocol == _KERNEL and kind in _DERIVED):
        return b""
    shown = _without(message, _VOLATILE_ROUTE, 12)
    if (
        protocol == _KERNEL
        and message[:2] == bytes([socket.AF_INET6, 64])
        and _packed(_DESTINATION, _LINK_LOCAL) in shown
    ):
        return b""
    return message[:8] + shown


def _rules(kernel: _Kernel) -> Iterator[list[bytes]]:
    """Yield all that nftables has; the first 4 bytes of each message have the number of the last change."""
    everything = bytes(4)
    tables = [each[:1] + each[4:] for each in kernel.ask(_GET_TABLES, everything)]
    yield sorted(tables)
    if not tables:
        return
    for kind in _GET_OTHERS:
        # Only chains have counters under this number.
        volatile = {_CHAIN_COUNTERS} if kind == _GET_OTHERS[0] else ()
        yield sorted(
            each[:1] + _RULE_COUNTER.sub(b"", _without(each, volatile, 4))
            for each in kernel.ask(kind, everything)
        )
    for each in list(kernel.ask(_GET_SETS, everything)):
        yield [each[:1] + each[4:]]
        of_kind = dict(_attributes(each, 4))
        table_and_name = b"".join(_encoded(number, of_kind[number]) for number in (1, 2))
        listed = kernel.ask(_GET_ELEMENTS, each[:1] + bytes(3) + table_and_name)
        yield sorted(element for part in listed for element in _elements(part))


def _encoded(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def _elements(message: bytes) -> Iterator[bytes]:
    for kind, value in _attributes(message, 4):
        if kind == _ELEMENTS:
            yield from (element for _, element in _attributes(value))

"""Netlink attributes, netlink(7), as bytes."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_NESTED = 0x8000
_KIND = 0x3FFF
_HEADER = struct.Struct("=HH")


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to 4 bytes."""
    return _HEADER.pack(len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    """Encode a string with the NUL that the kernel expects at its end."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """Encode a number as nfnetlink does: 32 bits, big endian; negative ones as two's complement."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def number(kind: int, value: int) -> bytes:
    """Encode a number as rtnetlink does: 32 bits in the machine's byte order."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def nest(kind: int, *parts: bytes) -> bytes:
    """Encode attributes within an attribute."""
    return attribute(kind | _NESTED, b"".join(parts))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield encoded attributes as (kind, payload), in order; stop at bytes that are no attribute."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _HEADER.unpack_from(data, at)
        if length < 4:
            return
        yield kind & _KIND, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes, only: Container[int] = range(_KIND + 1)) -> dict[int, bytes]:
    """Return encoded attributes by kind, all or those in `only`; the last one of several of a kind."""
    # A link has a hundred attributes, of which few are needed: no generator, and few copies.
    found = {}
    at, end = 0, len(data) - 3
    unpack = _HEADER.unpack_from
    while at < end:
        length, kind = unpack(data, at)
        if length < 4:
            break
        if (kind := kind & _KIND) in only:
            found[kind] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def shown_number(payload: bytes) -> int:
    """Decode a number of rtnetlink of any width; 0 for an absent attribute."""
    return int.from_bytes(payload, sys.byteorder)


def shown_text(payload: bytes) -> str:
    """Decode a string."""
    return payload.rstrip(b"\0").decode(errors="replace")

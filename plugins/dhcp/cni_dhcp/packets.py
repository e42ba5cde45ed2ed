"""DHCP messages of IPv4 as bytes (RFC 2131, RFC 2132, RFC 3396, RFC 3397, RFC 3442). Pure.

What a server sends is a stranger's input: a message that is not sound raises `MalformedError`, and nothing
raises anything else.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER_PORT, CLIENT_PORT = 67, 68
BROADCAST = IPv4Address("255.255.255.255")
NOWHERE = IPv4Address(0)
# The value of an option of 32 bits that stands for "for ever".
FOREVER = 0xFFFFFFFF

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)

# Option codes.
SUBNET_MASK, ROUTERS, DNS_SERVERS, HOST_NAME, DOMAIN_NAME = 1, 3, 6, 12, 15
INTERFACE_MTU, BROADCAST_ADDRESS, STATIC_ROUTES, NTP_SERVERS, VENDOR_INFORMATION = 26, 28, 33, 42, 43
REQUESTED_ADDRESS, LEASE_TIME, MESSAGE_TYPE, SERVER_IDENTIFIER, PARAMETER_LIST = 50, 51, 53, 54, 55
MESSAGE, LARGEST_MESSAGE, RENEWAL_TIME, REBINDING_TIME = 56, 57, 58, 59
VENDOR_CLASS, CLIENT_IDENTIFIER, USER_CLASS = 60, 61, 77
DOMAIN_SEARCH, CLASSLESS_ROUTES = 119, 121
_PAD, _OVERLOAD, _END = 0, 52, 255

# op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, magic cookie
_HEAD = struct.Struct("!4BI2H4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_REQUEST_OP, _REPLY_OP = 1, 2
_ETHERNET = 1
_BROADCAST_FLAG = 0x8000
# What a client must be able to receive; shorter messages are padded for old relays.
_SHORTEST = 300
_LONGEST_VALUE = 255
_LARGEST_ACCEPTED = 1500
_IP_HEAD = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEAD = struct.Struct("!4H")
_UDP = 17
_TIME_TO_LIVE = 64
_FRAGMENT = 0x3FFF
_MOST_POINTERS = 64
_LONGEST_NAME = 253
_CLIENT_ID_BYTES = 254


class MalformedError(ValueError):
    """Bytes that are no sound message, or an option whose value is not of its form."""


class Message(NamedTuple):
    """A message between client and server; `kind` is its option 53, and `options` has all others.

    `mac` is the hardware address of the client. `your_address` is the address that the server gives.
    """

    kind: int
    xid: int
    mac: bytes
    options: Mapping[int, bytes]
    client_address: IPv4Address = NOWHERE
    your_address: IPv4Address = NOWHERE
    wants_broadcast: bool = False

    def address(self, option: int) -> IPv4Address | None:
        """Return an option that is an address; None if the message lacks it."""
        value = self.options.get(option)
        return None if value is None else IPv4Address(_exactly(option, value, 4))

    def addresses(self, option: int) -> tuple[IPv4Address, ...]:
        """Return an option that is a list of addresses; () if the message lacks it."""
        return tuple(map(IPv4Address, _chunks(option, self.options.get(option, b""), 4)))

    def number(self, option: int) -> int | None:
        """Return an option that is a number; None if the message lacks it."""
        value = self.options.get(option)
        return None if value is None else int.from_bytes(_exactly(option, value, 4))

    def text(self, option: int) -> str:
        """Return an option that is text, without characters that are not printable; "" if it is missing."""
        value = self.options.get(option, b"").split(b"\0")[0].decode("ascii", "replace")
        return "".join(each for each in value if each.isprintable() and each != "\ufffd")

    def prefix_length(self) -> int:
        """Return the length of the subnet mask. Raise MalformedError if there is none, or if it has gaps."""
        mask = self.address(SUBNET_MASK)
        if mask is None:
            raise MalformedError("DHCP option Subnet Mask not found in DHCPACK")
        length = 32 - (int(mask) ^ FOREVER).bit_length()
        if int(mask) != (FOREVER << (32 - length)) & FOREVER:
            raise MalformedError(f"the subnet mask is {mask}")
        return length

    def static_routes(self) -> list[tuple[IPv4Network, IPv4Address]]:
        """Return the routes of option 33: destinations of the classes A, B and C, each with its router."""
        pairs = _chunks(STATIC_ROUTES, self.options.get(STATIC_ROUTES, b""), 8)
        routes = [(IPv4Address(each[:4]), IPv4Address(each[4:])) for each in pairs]
        # RFC 2132, section 5.8: the default route is no legal destination.
        return [(_classful(target), router) for target, router in routes if target != NOWHERE]

    def classless_routes(self) -> list[tuple[IPv4Network, IPv4Address]] | None:
        """Return the routes of option 121; None if the message lacks it. Router 0.0.0.0 is the link."""
        rest = self.options.get(CLASSLESS_ROUTES)
        if rest is None:
            return None
        routes = []
        while rest:
            length = rest[0]
            significant = (length + 7) // 8
            end = 1 + significant + 4
            if length > 32 or len(rest) < end:
                raise MalformedError("option 121 is truncated, or has a prefix of more than 32 bits")
            target = rest[1 : 1 + significant].ljust(4, b"\0")
            network = IPv4Network((target, length), strict=False)
            routes.append((network, IPv4Address(rest[1 + significant : end])))
            rest = rest[end:]
        return routes

    def search_domains(self) -> tuple[str, ...]:
        """Return the domains of option 119 (RFC 3397), which are compressed as in DNS messages."""
        value = self.options.get(DOMAIN_SEARCH, b"")
        names, at = [], 0
        while at < len(value):
            name, at = _read_name(value, at)
            names.append(name)
        return tuple(filter(None, names))


def client_identifier(container_id: str, network: str, ifname: str) -> bytes:
    """Return the value of option 61 that the Go plugin sends: type 0, then the names, cut to 254 bytes."""
    return b"\0" + f"{container_id}/{network}/{ifname}".encode(errors="replace")[:_CLIENT_ID_BYTES]


def encode(message: Message) -> bytes:
    """Return the bytes of a client's message. An option longer than 255 bytes is split (RFC 3396)."""
    flags = _BROADCAST_FLAG if message.wants_broadcast else 0
    addresses = (message.client_address.packed, message.your_address.packed, bytes(4), bytes(4))
    head = (_REQUEST_OP, _ETHERNET, len(message.mac), 0, message.xid, 0, flags)
    text = _HEAD.pack(*head, *addresses, message.mac, b"", b"", _COOKIE)
    text += bytes([MESSAGE_TYPE, 1, message.kind])
    for code, value in message.options.items():
        for start in range(0, len(value) or 1, _LONGEST_VALUE):
            part = value[start : start + _LONGEST_VALUE]
            text += bytes([code, len(part)]) + part
    return (text + bytes([_END])).ljust(_SHORTEST, b"\0")


def parse(text: bytes) -> Message:
    """Return a server's message. Raise MalformedError."""
    return _parse(text, _REPLY_OP)


def parse_request(text: bytes) -> Message:
    """Return a client's message. Raise MalformedError."""
    return _parse(text, _REQUEST_OP)


def _parse(text: bytes, wanted_op: int) -> Message:
    if not _HEAD.size <= len(text) <= _LARGEST_ACCEPTED:
        raise MalformedError(f"a message of {len(text)} bytes")
    op, htype, hlen, _, xid, _, flags, client, yours, _, _, chaddr, sname, file, cookie = _HEAD.unpack_from(
        text
    )
    if (op, htype, hlen, cookie) != (wanted_op, _ETHERNET, 6, _COOKIE):
        raise MalformedError("no DHCP message for Ethernet of this direction")
    options = _read_options(text[_HEAD.size :], {})
    # RFC 2131, section 4.1: options go on in the fields "file" and "sname".
    overload = options.pop(_OVERLOAD, b"\0")[-1:]
    for bit, field in ((1, file), (2, sname)):
        if int.from_bytes(overload) & bit:
            options = _read_options(field, options)
    kind = options.pop(MESSAGE_TYPE, b"")
    if len(kind) != 1:
        raise MalformedError("the message has no type")
    addresses = IPv4Address(client), IPv4Address(yours)
    return Message(kind[0], xid, chaddr[:6], options, *addresses, bool(flags & _BROADCAST_FLAG))


def _read_options(text: bytes, before: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return options with those of `before`; the parts of an option are joined (RFC 3396)."""
    options, at = dict(before), 0
    while at < len(text) and text[at] != _END:
        code = text[at]
        if code == _PAD:
            at += 1
            continue
        end = at + 2 + (text[at + 1] if at + 1 < len(text) else _LONGEST_VALUE)
        if end > len(text):
            raise MalformedError(f"option {code} is truncated")
        options[code] = options.get(code, b"") + text[at + 2 : end]
        at = end
    return options


def _read_name(value: bytes, at: int) -> tuple[str, int]:
    """Return the name at a position, and the position behind it. A pointer leads backwards only."""
    labels: list[str] = []
    behind, pointers = 0, 0
    while True:
        if at >= len(value):
            raise MalformedError("option 119 is truncated")
        length = value[at]
        if length >= 0xC0:
            pointers += 1
            target = int.from_bytes(value[at : at + 2]) & 0x3FFF
            if at + 2 > len(value) or target >= at or pointers > _MOST_POINTERS:
                raise MalformedError("option 119 has a pointer that leads nowhere")
            behind, at = behind or at + 2, target
            continue
        if length > 63 or at + 1 + length > len(value):
            raise MalformedError("option 119 has a malformed label")
        if not length:
            return ".".join(labels), behind or at + 1
        label = value[at + 1 : at + 1 + length].decode("ascii", "replace")
        labels.append("".join(each for each in label if each.isalnum() or each in "-_"))
        if sum(map(len, labels)) + len(labels) > _LONGEST_NAME:
            raise MalformedError("option 119 has a name that is too long")
        at += 1 + length


def _classful(target: IPv4Address) -> IPv4Network:
    first = target.packed[0]
    length = 8 if first < 128 else 16 if first < 192 else 24
    return IPv4Network((int(target), length), strict=False)


def _exactly(option: int, value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise MalformedError(f"option {option} has {len(value)} bytes, not {size}")
    return value


def _chunks(option: int, value: bytes, size: int) -> list[bytes]:
    if len(value) % size:
        raise MalformedError(f"option {option} has {len(value)} bytes, no multiple of {size}")
    return [value[start : start + size] for start in range(0, len(value), size)]


def wrap(text: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """Return a client's message with its UDP and IP headers, both with checksums."""
    length = _UDP_HEAD.size + len(text)
    pseudo = source.packed + target.packed + struct.pack("!BBH", 0, _UDP, length)
    head = _UDP_HEAD.pack(CLIENT_PORT, SERVER_PORT, length, 0)
    udp = _UDP_HEAD.pack(CLIENT_PORT, SERVER_PORT, length, checksum(pseudo + head + text) or 0xFFFF)
    fields = (0x45, 0, _IP_HEAD.size + length, 0, 0, _TIME_TO_LIVE, _UDP)
    ends = (source.packed, target.packed)
    return _IP_HEAD.pack(*fields, checksum(_IP_HEAD.pack(*fields, 0, *ends)), *ends) + udp + text


def unwrap(packet: bytes) -> bytes:
    """Return the message in an IP packet from a server. Raise MalformedError.

    Checksums are not compared: a virtual link does not complete those of its own host.
    """
    if len(packet) < _IP_HEAD.size:
        raise MalformedError("an IP packet without a header")
    first, _, total, _, fragment, _, protocol, _, _, _ = _IP_HEAD.unpack_from(packet)
    head = (first & 15) * 4
    if first >> 4 != 4 or head < _IP_HEAD.size or protocol != _UDP or fragment & _FRAGMENT:
        raise MalformedError("no whole UDP packet of IPv4")
    udp = packet[head:total]
    if len(udp) < _UDP_HEAD.size:
        raise MalformedError("a UDP packet without a header")
    source, target, length, _ = _UDP_HEAD.unpack_from(udp)
    if (source, target) != (SERVER_PORT, CLIENT_PORT) or not _UDP_HEAD.size <= length <= len(udp):
        raise MalformedError("no packet from a DHCP server to a client")
    return udp[_UDP_HEAD.size : length]


def checksum(text: bytes) -> int:
    """Return the checksum of the internet protocols (RFC 1071)."""
    padded = text + b"\0" * (len(text) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

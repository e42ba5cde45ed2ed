"""Ask a gRPC service on a unix socket, without a library: one call, one connection, small messages.

Enough of HTTP/2 (RFC 9113), HPACK (RFC 7541) and protobuf to drive a container runtime in a test. A
failure's text is not decoded, as it comes compressed; the server's log has it.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Value = int | str | bytes
    Fields = Mapping[int, Value | Iterable[Value]]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_STREAM = 1


class CallError(RuntimeError):
    """The service refused the call."""


def call(path: str, method: str, request: bytes, timeout_s: float = 60) -> bytes:
    """Call `method`, "/package.Service/Method", of the service at a socket. Return its response.

    Raises CallError when the service refuses, OSError when there is none.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        body = struct.pack(">BI", 0, len(request)) + request
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0)
            + _frame(_HEADERS, _END_HEADERS, _STREAM, _headers(method))
            + _frame(_DATA, _END_STREAM, _STREAM, body)
        )
        answer = _receive(connection)
    if len(answer) < 5:
        raise CallError(f"{method} failed; the server's log tells why")
    return answer[5:]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _headers(method: str) -> bytes:
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Literals that are not indexed; names and values shorter than 127 bytes.
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in pairs.items()
    )


def _receive(connection: socket.socket) -> bytes:
    body = b""
    while True:
        head = _read(connection, 9)
        kind, flags = head[3], head[4]
        payload = _read(connection, int.from_bytes(head[:3], "big"))
        if kind == _DATA:
            body += payload
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            connection.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        if kind in {_RESET, _GOAWAY} or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            return body


def _read(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = connection.recv(size - len(got))
        if not more:
            raise CallError("the server closed the connection")
        got += more
    return got


def encode(fields: Fields) -> bytes:
    """Return a protobuf message of fields: number to integer, string, message bytes, or a list of these."""
    return b"".join(
        _field(number, each)
        for number, value in fields.items()
        for each in ([value] if isinstance(value, int | str | bytes) else value)
    )


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def decode(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Return the fields of a protobuf message in their order, as integers and byte strings."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            yield key >> 3, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not message[at - 1] & 0x80:
            return value, at

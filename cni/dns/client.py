"""The plugin's side of the server: wake it, and ask it. It needs no library of DNS.

HELPER.wake(until_done=True)
ask("10.1.0.1", "web.dns.podman", A)      # the addresses; None if the server does not answer
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from cni.service.client import Helper

if TYPE_CHECKING:
    from cni.kernel.netns import Netns

A, AAAA = 1, 28
HELPER = Helper("dns", "cni.dns.serve", linger_s=2.0, memory_mib=96)

_PORT = 53
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!3HIH")
_RECURSION, _TRUNCATED, _RCODE = 0x0100, 0x0200, 0x000F
_INTERNET = 1
_LARGEST = 0xFFFF
_ASK_AGAIN_S = 0.5


class Answer(NamedTuple):
    """The response code, and the addresses that answer a question."""

    rcode: int
    addresses: tuple[str, ...]


def ask(
    server: str, name: str, kind: int, timeout_s: float = 2.0, *, ns: Netns | None = None
) -> Answer | None:
    """Return a server's answer for a name; None if there is none. Raise OSError if it cannot be asked.

    With `ns` the question comes from that namespace.
    """
    query = _query(name, kind)
    deadline_s = time.monotonic() + timeout_s
    with _open(server, socket.SOCK_DGRAM, ns) as asking:
        asking.connect((server, _PORT))
        while (rest_s := deadline_s - time.monotonic()) > 0:
            asking.settimeout(min(rest_s, _ASK_AGAIN_S))
            try:
                asking.send(query)
                answer = asking.recv(_LARGEST)
            except TimeoutError:
                continue
            if answer[:2] == query[:2]:
                is_cut = int.from_bytes(answer[2:4], "big") & _TRUNCATED
                return parse(_ask_by_tcp(server, query, rest_s, ns) if is_cut else answer, len(query))
    return None


def _open(server: str, kind: socket.SocketKind, ns: Netns | None) -> socket.socket:
    """Return a socket that stays in a namespace."""
    with ns.entered() if ns else nullcontext():
        return socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)


def parse(answer: bytes, question_end: int) -> Answer:
    """Return code and addresses of an answer whose names are compressed. Raise OSError for others."""
    try:
        _, flags, _, count, _, _ = _HEADER.unpack_from(answer)
        addresses = []
        at = question_end
        for _ in range(count):
            _, kind, _, _, length = _RECORD.unpack_from(answer, at)
            content = answer[at + _RECORD.size : at + _RECORD.size + length]
            at += _RECORD.size + length
            if kind in {A, AAAA}:
                family = socket.AF_INET if kind == A else socket.AF_INET6
                addresses.append(socket.inet_ntop(family, content))
    except (struct.error, ValueError) as error:
        raise OSError("the answer is malformed") from error
    return Answer(flags & _RCODE, tuple(addresses))


def _query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    number = int.from_bytes(os.urandom(2), "big")
    return _HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, _INTERNET)


def _ask_by_tcp(server: str, query: bytes, timeout_s: float, ns: Netns | None) -> bytes:
    with _open(server, socket.SOCK_STREAM, ns) as asking:
        asking.settimeout(timeout_s)
        asking.connect((server, _PORT))
        asking.sendall(len(query).to_bytes(2, "big") + query)
        received = b""
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            chunk = asking.recv(_LARGEST)
            if not chunk:
                raise ConnectionResetError("the server has closed the connection")
            received += chunk
    return received[2:]

"""Find out which connections are answered, without a time limit: echoes show that silence is final.

A processor handles packets in the order in which they came to it, those of all network namespaces in one
queue. An attempt and its answer are a chain of such packets, and no process is part of it: the kernel accepts
connections for a socket that listens. Longer chains follow on the same processor. A connection that is not
there when these have ended never comes. A time limit would have to exceed all delays of a busy machine.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from cni.testing.place import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Sequence

# An attempt takes four packets by way of the host, and four for each neighbour that must be found. Two echoes
# take four.
_ECHOES = 24
# What was lost while a link came up is sent again.
_TRIES = 3
_AGAIN_S = 0.05
# Longer than any busy machine needs for what takes milliseconds.
_LONG_S = 120
# Protocol, type of the request, type of the reply.
_ECHO = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}


class Way(NamedTuple):
    """A TCP port, and an address on the way to it that answers echo requests, for example the gateway."""

    address: str
    port: int
    via: str


def list_answered(ways: Sequence[Way]) -> list[bool]:
    """Return for each way whether a server accepts a connection. It is for a process of its own."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for via in {way.via for way in ways}:
        exchange_echoes(via)
    answered = dict.fromkeys(ways, False)
    for _ in range(_TRIES):
        silent = [way for way in ways if not answered[way]]
        answered.update(zip(silent, _try(silent), strict=True))
    return [answered[way] for way in ways]


def _try(ways: Sequence[Way]) -> list[bool]:
    clients = [socket.socket(_family(way.address), socket.SOCK_STREAM) for way in ways]
    for client, way in zip(clients, ways, strict=True):
        client.settimeout(0)
        client.connect_ex((way.address, way.port))
    for via in {way.via for way in ways}:
        exchange_echoes(via, _ECHOES)
    answered = [_is_served(client) for client in clients]
    for client in clients:
        client.close()
    return answered


def _is_served(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    # A server that has accepted a connection answers, however busy the machine is.
    client.settimeout(_LONG_S * SLOWNESS)
    return bool(client.recv(1000))


def exchange_echoes(address: str, count: int = 1) -> None:
    """Send echo requests, each after the reply to the one before. Raise TimeoutError if none answers."""
    family = _family(address)
    protocol, _, reply = _ECHO[family]
    with socket.socket(family, socket.SOCK_RAW, protocol) as client:
        client.settimeout(_AGAIN_S)
        client.connect((address, 0))
        for number in range(count):
            deadline = time.monotonic() + _LONG_S * SLOWNESS
            while not _is_answered(client, _request(family, number), reply):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{address} does not answer echo requests")


def _is_answered(client: socket.socket, request: bytes, reply: int) -> bool:
    try:
        client.send(request)
        while True:
            packet = client.recv(256)
            # The kernel passes on the header of IPv4, not that of IPv6.
            start = (packet[0] & 0xF) * 4 if client.family == socket.AF_INET else 0
            if packet[start] == reply and packet[start + 4 : start + 8] == request[4:8]:
                return True
    except OSError:
        time.sleep(_AGAIN_S)
        return False


def _request(family: int, number: int) -> bytes:
    """Return an echo request with the process as its identifier."""
    kind, identifier = _ECHO[socket.AddressFamily(family)][1], os.getpid() & 0xFFFF
    # The kernel computes the checksum of ICMPv6.
    total = (kind << 8) + identifier + number
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack("!BBHHH", kind, 0, checksum, identifier, number)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET

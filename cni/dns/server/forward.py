"""Forward queries to the servers of resolv.conf, as they are, and match their answers.

A server that does not answer within a second is asked last for a while. Each query has a socket and an ID of
its own, so that an answer cannot be guessed. A query that waits already for the same asker and servers is not
sent again: a loop by which our own query comes back to us ends there. No answer is kept: askers with other
servers get other answers.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.dns.server.poller import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from cni.dns.server.poller import Poller

    # Sends an answer, whose ID is the query's.
    Reply = Callable[[bytes], None]
    # Asker, transport, the query without its ID, and the servers as given.
    _Key = tuple[str, bool, bytes, tuple[str, ...] | None]

_PORT = 53
_NEXT_AFTER_S = 0.8
_GIVE_UP_AFTER_S = 4.0
_AVOIDED_S = 15.0
_MOST, _MOST_OF_ASKER = 1024, 256
# Of the descriptors that the process may have; files and connections of clients need the others.
_PART_OF_FILES = 0.5
_LARGEST = 0xFFFF
_RCODE, _SERVFAIL, _REFUSED = 0x0F, 2, 5
_QUESTION = 12


class Query(NamedTuple):
    """A query to forward; `asker` is the address that it came from."""

    asker: str
    wire: bytes
    is_tcp: bool


class Forwarder:
    """The queries that wait for an answer of a server."""

    def __init__(self, poller: Poller, resolv_conf: Path, fail: Callable[[bytes], bytes]) -> None:
        self._poller = poller
        self._resolv_conf = resolv_conf
        self._fail = fail
        self._waiting: dict[_Key, _Waiting] = {}
        self._count: dict[str, int] = {}
        self._avoided: dict[str, float] = {}
        self._open, self._most_open = 0, int(_PART_OF_FILES * resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._read: tuple[tuple[int, int, int], list[str]] = ((0, 0, 0), [])

    def forward(
        self, query: Query, servers: Sequence[str] | None, excluded: Collection[str], reply: Reply
    ) -> None:
        """Reply with the answer of the first of the servers that answers, or with SERVFAIL.

        None are the servers of resolv.conf. `excluded` are addresses that would ask us again.
        """
        # The next container at an address may have other servers.
        key = (query.asker, query.is_tcp, query.wire[2:], None if servers is None else tuple(servers))
        if waiting := self._waiting.get(key):
            waiting.replies[query.wire[:2]] = reply
            return
        usable = [each for each in self._servers(servers) if each.partition("%")[0] not in excluded]
        is_full = len(self._waiting) >= _MOST or self._open >= self._most_open
        if not usable or is_full or self._count.get(query.asker, 0) >= _MOST_OF_ASKER:
            reply(self._fail(query.wire))
            return
        now_s = time.monotonic()
        usable.sort(key=lambda each: self._avoided.get(each, 0) > now_s)
        waiting = _Waiting(key, query, usable, now_s + _GIVE_UP_AFTER_S, {query.wire[:2]: reply})
        self._waiting[key] = waiting
        self._count[query.asker] = self._count.get(query.asker, 0) + 1
        self._ask_next(waiting)

    def expire(self) -> float | None:
        """Ask the next server for what waits too long.

        Return the seconds until more is due, None if nothing waits.
        """
        now_s = time.monotonic()
        for each in list(self._waiting.values()):
            if each.deadline_s <= now_s:
                self._finish(each, each.refused or self._fail(each.query.wire))
            elif each.next_s <= now_s:
                self._avoided[each.server] = now_s + _AVOIDED_S
                self._ask_next(each)
        due_s = [min(each.next_s, each.deadline_s) for each in self._waiting.values()]
        return max(0.0, min(due_s) - now_s) if due_s else None

    @property
    def is_waiting(self) -> bool:
        """Return whether a query waits, so that `expire` must be called."""
        return bool(self._waiting)

    def _servers(self, servers: Sequence[str] | None) -> list[str]:
        return self._read_resolv_conf() if servers is None else list(servers)

    def _read_resolv_conf(self) -> list[str]:
        """Return the servers of resolv.conf, which may be replaced at any time."""
        try:
            status = self._resolv_conf.stat()
            key = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._read[0] != key:
                self._read = (key, parse_resolv_conf(self._resolv_conf.read_bytes()))
        except OSError:
            return []
        return self._read[1]

    def _ask_next(self, waiting: _Waiting) -> None:
        """Ask the next server that can be asked; give up when each has refused."""
        for _ in waiting.servers:
            waiting.turn += 1
            waiting.next_s = time.monotonic() + _NEXT_AFTER_S
            if waiting.turn >= len(waiting.servers) and waiting.refused:
                break
            if self._open >= self._most_open:
                self._close_all(waiting)
            try:
                asked = _Asked(self._poller, waiting.query, waiting.server)
            except (OSError, ValueError):
                self._avoided[waiting.server] = time.monotonic() + _AVOIDED_S
                continue
            waiting.asked.append(asked)
            self._open += 1
            self._poller.watch(asked.socket, partial(self._receive, waiting, asked), asked.mask)
            return
        # With a query in hand the answer to that one may come.
        if waiting.refused or not waiting.asked:
            self._finish(waiting, waiting.refused or self._fail(waiting.query.wire))

    def _receive(self, waiting: _Waiting, asked: _Asked) -> None:
        try:
            answer = asked.receive()
        except OSError:
            self._avoided[asked.server] = time.monotonic() + _AVOIDED_S
            self._drop(waiting, asked)
            return
        if answer is None:
            return
        self._avoided.pop(asked.server, None)
        if answer[3] & _RCODE in {_SERVFAIL, _REFUSED} and waiting.turn + 1 < len(waiting.servers):
            waiting.refused = answer
            self._drop(waiting, asked)
            return
        self._finish(waiting, answer)

    def _drop(self, waiting: _Waiting, asked: _Asked) -> None:
        """Close the socket of a server that failed, and ask the next one if no other is being asked."""
        waiting.asked.remove(asked)
        self._close(asked)
        if waiting.asked:
            return
        if waiting.turn + 1 < len(waiting.servers):
            self._ask_next(waiting)
        else:
            self._finish(waiting, waiting.refused or self._fail(waiting.query.wire))

    def _finish(self, waiting: _Waiting, answer: bytes) -> None:
        query = waiting.query
        del self._waiting[waiting.key]
        self._count[query.asker] -= 1
        if not self._count[query.asker]:
            del self._count[query.asker]
        self._close_all(waiting)
        for number, reply in waiting.replies.items():
            with suppress(OSError):
                reply(number + answer[2:])

    def _close_all(self, waiting: _Waiting) -> None:
        for each in waiting.asked:
            self._close(each)
        waiting.asked.clear()

    def _close(self, asked: _Asked) -> None:
        self._poller.close(asked.socket)
        self._open -= 1


class _Waiting:
    """A query that waits; the replies are by the query's ID."""

    def __init__(
        self, key: _Key, query: Query, servers: Sequence[str], deadline_s: float, replies: dict[bytes, Reply]
    ) -> None:
        self.key = key
        self.query = query
        self.servers = servers
        self.deadline_s = deadline_s
        self.replies = replies
        self.turn = -1
        self.next_s = 0.0
        self.asked: list[_Asked] = []
        self.refused = b""

    @property
    def server(self) -> str:
        """The server that is asked now."""
        return self.servers[self.turn % len(self.servers)]


class _Asked:
    """A query to one server."""

    def __init__(self, poller: Poller, query: Query, server: str) -> None:
        self.server = server
        self._poller = poller
        self._number = os.urandom(2)
        self._question = _question(query.wire)
        wire = self._number + query.wire[2:]
        self._unsent = len(wire).to_bytes(2, "big") + wire if query.is_tcp else b""
        self._received = b""
        self._is_tcp = query.is_tcp
        self.mask = WRITE if query.is_tcp else READ
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_STREAM if query.is_tcp else socket.SOCK_DGRAM
        self.socket = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        try:
            with suppress(BlockingIOError):
                self.socket.connect(_socket_address(server))
            if not query.is_tcp:
                self.socket.send(wire)
        except BaseException:
            self.socket.close()
            raise

    def receive(self) -> bytes | None:
        """Return the answer; None if there is none yet. Raise OSError if the server cannot be asked."""
        if self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
            if not self._unsent:
                self._poller.change(self.socket, READ)
            return None
        received = self.socket.recv(_LARGEST)
        if self._is_tcp:
            if not received:
                raise ConnectionResetError("the server has closed the connection")
            self._received += received
            length = int.from_bytes(self._received[:2], "big")
            if len(self._received) < 2 + max(length, 2):
                return None
            received = self._received[2 : 2 + length]
        is_answer = received[:2] == self._number and len(received) >= _QUESTION and received[2] & 0x80
        return received if is_answer and _question(received) in {self._question, b""} else None


def parse_resolv_conf(content: bytes) -> list[str]:
    """Return the addresses of the servers that a resolv.conf names, with the scope of link-local ones."""
    words = [line.split() for line in content.decode(errors="replace").splitlines()]
    return valid_servers(each[1] for each in words if len(each) > 1 and each[0] == "nameserver")


def valid_servers(servers: Iterable[str]) -> list[str]:
    """Return those that are addresses: others are skipped, as resolvers do."""
    found = []
    for each in servers:
        address, _, scope = each.partition("%")
        with suppress(ValueError):
            shown = str(ip_address(address))
            found.append(f"{shown}%{scope}" if scope else shown)
    return list(dict.fromkeys(found))


def _socket_address(server: str) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address to connect to. Raise OSError for an unknown link, as that of a link-local server."""
    address, _, scope = server.partition("%")
    if ":" not in address:
        return address, _PORT
    index = 0
    if scope:
        index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return address, _PORT, 0, index


def _question(wire: bytes) -> bytes:
    """Return the first question in lower case; b"" if there is none. Questions are never compressed."""
    at = _QUESTION
    if len(wire) < at or not int.from_bytes(wire[4:6], "big"):
        return b""
    while at < len(wire) and wire[at]:
        at += wire[at] + 1
    return wire[_QUESTION : at + 5].lower()

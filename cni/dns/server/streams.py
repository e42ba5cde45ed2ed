"""Queries by TCP: each message has its length before it (RFC 7766)."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cni.dns.book import HOST
from cni.dns.server.poller import READ, WRITE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cni.dns.server.poller import Poller

    # Answers a query of an asker to a gateway.
    Serve = Callable[[str, str, bytes, Callable[[bytes], None]], None]

_IDLE_S = 6.0
_MOST, _MOST_OF_ASKER = 128, 16
_LARGEST = 0xFFFF
_MOST_UNSENT = 1 << 18


class Streams:
    """The open connections of clients."""

    def __init__(self, poller: Poller, serve: Serve) -> None:
        self._poller = poller
        self._serve = serve
        self._open: dict[socket.socket, _Stream] = {}

    def accept(self, gateway: str, listener: socket.socket) -> None:
        """Accept the connections that wait. One too many is closed."""
        while True:
            try:
                accepted, peer = listener.accept()
            except OSError:
                return
            asker = HOST if peer[0] == gateway else peer[0]
            of_asker = sum(each.asker == asker for each in self._open.values())
            if len(self._open) >= _MOST or of_asker >= _MOST_OF_ASKER:
                accepted.close()
                continue
            accepted.settimeout(0)
            stream = _Stream(accepted, asker, gateway)
            self._open[accepted] = stream
            self._poller.watch(accepted, partial(self._attend, stream))

    def expire(self) -> float | None:
        """Close idle connections; return the seconds until the next one is idle, None without any."""
        now_s = time.monotonic()
        for each in [each for each in self._open.values() if each.used_s + _IDLE_S <= now_s]:
            self._close(each)
        used_s = min((each.used_s for each in self._open.values()), default=None)
        return None if used_s is None else max(0.0, used_s + _IDLE_S - now_s)

    def close_served(self) -> bool:
        """Close the connections whose queries are answered; return whether there are others."""
        for each in [each for each in self._open.values() if each.is_served]:
            self._close(each)
        return bool(self._open)

    def _attend(self, stream: _Stream) -> None:
        try:
            stream.flush()
            queries = stream.receive()
        except OSError:
            self._close(stream)
            return
        stream.asked += len(queries)
        for each in queries:
            self._serve(stream.asker, stream.gateway, each, partial(self._reply, stream))
        self._poller_mask(stream)

    def _reply(self, stream: _Stream, answer: bytes) -> None:
        """Send an answer; its connection may be closed already."""
        if stream.socket not in self._open:
            return
        stream.answered += 1
        stream.unsent += len(answer).to_bytes(2, "big") + answer
        try:
            stream.flush()
        except OSError:
            self._close(stream)
            return
        self._poller_mask(stream)

    def _poller_mask(self, stream: _Stream) -> None:
        if stream.socket not in self._open:
            return
        if len(stream.unsent) > _MOST_UNSENT:
            self._close(stream)
            return
        # A client that does not read its answers may not ask more.
        self._poller.change(stream.socket, WRITE if stream.unsent else READ)

    def _close(self, stream: _Stream) -> None:
        if self._open.pop(stream.socket, None):
            self._poller.close(stream.socket)


class _Stream:
    def __init__(self, accepted: socket.socket, asker: str, gateway: str) -> None:
        self.socket = accepted
        self.asker = asker
        self.gateway = gateway
        self.used_s = time.monotonic()
        self.unsent = b""
        self.asked = self.answered = 0
        self._received = b""

    @property
    def is_served(self) -> bool:
        """Whether it has had a query, and no other is unanswered or arriving."""
        return self.asked == self.answered > 0 and not self.unsent and not self._received

    def flush(self) -> None:
        """Send what can be sent."""
        with suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]

    def receive(self) -> list[bytes]:
        """Return the whole queries that have come. Raise OSError at the end of the connection."""
        try:
            received = self.socket.recv(_LARGEST)
        except BlockingIOError:
            return []
        if not received:
            raise ConnectionResetError("the client has closed the connection")
        self._received += received
        queries = []
        while len(self._received) >= 2 + (length := int.from_bytes(self._received[:2], "big")):
            queries.append(self._received[2 : 2 + length])
            self._received = self._received[2 + length :]
            # A client that sends parts of a query for ever is idle.
            self.used_s = time.monotonic()
        return queries

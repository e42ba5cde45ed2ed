"""The way of a query: an answer of the cache, a new one from the book, or one of another server.

The cache is by asker and the query's bytes after its ID. A hit parses nothing. Each change of the book
empties the cache. The answer to a name that is not in it is often that of another name, with its own name
and address. Unknown names are not cached.
"""

from __future__ import annotations

from itertools import cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from cni.dns.book import HOST, Book
from cni.dns.server import answer as answers
from cni.dns.server.forward import Forwarder, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.dns.names import Record
    from cni.dns.server.poller import Poller

    Reply = Callable[[bytes], None]

RESOLV_CONF = Path("/etc/resolv.conf")
# About a kilobyte each. A flood of unknown names must not fill the memory.
_MOST_CACHED = 2048


class Desk:
    """The book, the cache, and the forwarder."""

    def __init__(self, poller: Poller, resolv_conf: Path = RESOLV_CONF) -> None:
        self.book = Book()
        self.forwarder = Forwarder(poller, resolv_conf, answers.refusal)
        # An answer has several orders that take turns; None is a query to forward.
        self._cache: dict[tuple[str, str, bool, bytes], Iterator[bytes] | None] = {}
        self._templates: dict[object, answers.Template] = {}

    def add(self, record: Record) -> Record:
        """Add a record; return it as `remove` takes it."""
        self._forget()
        return self.book.add(record)

    def remove(self, record: Record) -> None:
        """Remove a record."""
        self._forget()
        self.book.remove(record)

    def serve(self, asker: str, gateway: str, query: bytes, reply: Reply, *, is_tcp: bool) -> None:
        """Answer a query, now or when another server has answered. HOST is the host's own address."""
        key = (asker, gateway, is_tcp, query[2:])
        try:
            turns = self._cache[key]
        except KeyError:
            turns = self._look_up(key, query)
        if turns is None:
            self._forward(Query(asker, query, is_tcp), gateway, reply)
        elif answer := next(turns, b""):
            reply(query[:2] + answer)

    def _look_up(self, key: tuple[str, str, bool, bytes], query: bytes) -> Iterator[bytes] | None:
        asker, gateway, is_tcp, _ = key
        view = self.book.view(asker, gateway)
        plain = answers.plain(self.book, view, query) if view else None
        kind = plain and (asker, gateway, is_tcp, plain.kind(query))
        if plain and (template := self._templates.get(kind)):
            turns: Iterator[bytes] | None = repeat(template.fill(query, plain))
        else:
            found = answers.answer(self.book, view, query, is_tcp=is_tcp)
            turns = None if found is None else cycle([each[2:] for each in found])
            template = answers.template(query, plain, found) if plain else None
        if len(self._cache) + len(self._templates) >= _MOST_CACHED:
            self._forget()
        if template:
            self._templates[kind] = template
        if not template or (plain and plain.rcode != answers.UNKNOWN):
            self._cache[key] = turns
        return turns

    def _forget(self) -> None:
        self._cache.clear()
        self._templates.clear()

    def _forward(self, query: Query, gateway: str, reply: Reply) -> None:
        view = self.book.view(query.asker, gateway)
        settings = view.forwarding if view else None
        if view is None or settings is None:
            reply(answers.refusal(query.wire))
            return
        excluded = self.book.gateways() | ({query.asker} if query.asker != HOST else set())
        if view.container_id:
            excluded |= self.book.addresses_of(view.container_id)
        self.forwarder.forward(query, view.upstreams or settings.upstreams, excluded, reply)

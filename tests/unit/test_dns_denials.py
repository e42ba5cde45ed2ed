"""An unknown name is answered like another one: byte for byte what dnspython would write."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import dns.message
import dns.name
import pytest

from cni.dns.server import answer as answers
from cni.dns.server.desk import Desk
from cni.dns.server.poller import Poller
from tests.unit.test_dns_answers import INSIDE, NET1, record

if TYPE_CHECKING:
    from pathlib import Path

ASKER, GATEWAY = "10.1.0.10", "10.1.0.1"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a desk with two networks, and no server to forward to."""
    desk = Desk(Poller(), tmp_path / "resolv.conf")
    desk.add(record("net1", NET1, "web", ASKER))
    desk.add(record("net3", INSIDE, "quiet", "10.3.0.10"))
    return desk


def _served(desk: Desk, query: bytes, *, is_tcp: bool = False, asker: str = ASKER) -> list[bytes]:
    replies: list[bytes] = []
    desk.serve(asker, GATEWAY, query, replies.append, is_tcp=is_tcp)
    return replies


def _answered(desk: Desk, query: bytes, *, is_tcp: bool) -> list[bytes]:
    found = answers.answer(desk.book, desk.book.view(ASKER, GATEWAY), query, is_tcp=is_tcp)
    return [answers.refusal(query)] if found is None else list(found[:1])


def _query(source: random.Random) -> bytes:
    """Return a query for a name of any kind, known and unknown, sometimes a damaged one."""
    label = source.choice([b"web", b"WEB", b"nobody", b"x" * 63, b"a.b", b"\xff"])
    domain = source.choice(
        [b"", b"one.test", b"ONE.test", b"in.test", b"example.com", b"1.1.10.in-addr.arpa"]
    )
    name = dns.name.Name(
        [label] * source.choice([1, 1, 3]) + [each for each in domain.split(b".") if each] + [b""]
    )
    kind, class_ = source.choice(["A", "AAAA", "PTR", "AXFR"]), source.choice(["IN", "IN", "CH"])
    query = dns.message.make_query(name, kind, class_, use_edns=source.choice([None, 0, 1]))
    query.flags ^= source.choice([0, 0x10, 0x100])
    wire = bytearray(query.to_wire())
    if source.random() < 0.2:
        wire[source.randrange(2, len(wire))] = source.randrange(256)
    return bytes(wire[: source.randrange(12, len(wire))] if source.random() < 0.05 else wire)


def test_answers_are_those_of_dnspython(desk: Desk) -> None:
    source = random.Random(1)  # noqa: S311 - the same each time
    for _ in range(3000):
        query, is_tcp = _query(source), source.random() < 0.2
        assert _served(desk, query, is_tcp=is_tcp) == _answered(desk, query, is_tcp=is_tcp), query


def test_unknown_names_are_read_by_dnspython_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Counter[str]()
    from_wire = dns.message.from_wire

    def count(wire: bytes, **keys: Any) -> dns.message.Message:
        read["messages"] += 1
        return from_wire(wire, **keys)

    monkeypatch.setattr(dns.message, "from_wire", count)
    for number in range(5000):
        [reply] = _served(desk, dns.message.make_query(f"nobody{number}.one.test", "A").to_wire())
        assert reply[3] & 15 == 3
    assert read["messages"] == 1
    # Names that exist stay in the cache meanwhile.
    web = dns.message.make_query("web", "A").to_wire()
    assert _served(desk, web)[0][3] & 15 == 0
    for number in range(5000):
        _served(desk, dns.message.make_query(f"somebody{number}", "A").to_wire())
    _served(desk, web)
    assert read["messages"] == 2


def test_a_name_that_comes_is_denied_no_longer(desk: Desk) -> None:
    queries = [dns.message.make_query(each, "A").to_wire() for each in ("other", "new", "new.one.test")]
    assert [_served(desk, each)[0][3] & 15 for each in queries] == [3, 3, 3]
    added = desk.add(record("net1", NET1, "new", "10.1.0.11"))
    assert [_served(desk, each)[0][3] & 15 for each in queries] == [3, 0, 0]
    # An asker without names is refused, also after it was denied.
    desk.remove(added)
    assert [_served(desk, each, asker="10.1.0.11")[0][3] & 15 for each in queries] == [5, 5, 5]

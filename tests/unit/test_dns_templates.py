"""A name is answered like another one: byte for byte what dnspython would write."""

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
    desk.add(record("net1", NET1, "db", "10.1.0.11", "fd01::11", names=("both", "x" * 63)))
    desk.add(record("net1", NET1, "six", "fd01::12", names=("both",)))
    desk.add(record("net1", NET1, "two", "10.1.0.13", "10.1.0.14", "fd01::13"))
    desk.add(record("net3", INSIDE, "quiet", "10.3.0.10"))
    return desk


def _served(desk: Desk, query: bytes, *, is_tcp: bool = False, asker: str = ASKER) -> list[bytes]:
    replies: list[bytes] = []
    desk.serve(asker, GATEWAY, query, replies.append, is_tcp=is_tcp)
    return replies


def _expected(desk: Desk, query: bytes, *, is_tcp: bool) -> list[bytes]:
    """Return the answers that dnspython writes: several addresses take turns."""
    found = answers.answer(desk.book, desk.book.view(ASKER, GATEWAY), query, is_tcp=is_tcp)
    return [answers.refusal(query)] if found is None else list(found)


def _query(source: random.Random) -> bytes:
    """Return a query for a name of any kind, known and unknown, sometimes a damaged one."""
    label = source.choice(
        [b"web", b"WEB", b"db", b"both", b"six", b"two", b"nobody", b"x" * 63, b"a.b", b"\xff"]
    )
    domain = source.choice(
        [b"", b"one.test", b"ONE.test", b"in.test", b"example.com", b"1.1.10.in-addr.arpa"]
    )
    name = dns.name.Name(
        [label] * source.choice([1, 1, 3]) + [each for each in domain.split(b".") if each] + [b""]
    )
    kind, class_ = (
        source.choice(["A", "A", "AAAA", "AAAA", "PTR", "ANY", "MX", "AXFR"]),
        source.choice(["IN", "IN", "CH"]),
    )
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
        served, expected = _served(desk, query, is_tcp=is_tcp), _expected(desk, query, is_tcp=is_tcp)
        assert len(served) == min(1, len(expected)), query
        assert {*served} <= {*expected}, query


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a counter of the messages that dnspython reads."""
    read = Counter[str]()
    from_wire = dns.message.from_wire

    def count(wire: bytes, **keys: Any) -> dns.message.Message:
        read["messages"] += 1
        return from_wire(wire, **keys)

    monkeypatch.setattr(dns.message, "from_wire", count)
    return read


def _ask_all(desk: Desk, names: str, number: int, kind: str = "A") -> set[int]:
    """Ask for numbered names; return the codes of the answers."""
    wires = [dns.message.make_query(names.format(each), kind).to_wire() for each in range(number)]
    return {_served(desk, each)[0][3] & 15 for each in wires}


def test_unknown_names_are_read_by_dnspython_once(desk: Desk, read: Counter[str]) -> None:
    assert _ask_all(desk, "web", 1) == {0}
    assert _ask_all(desk, "nobody{}.one.test", 5000) == _ask_all(desk, "somebody{}", 5000) == {3}
    assert read["messages"] == 2
    # They have displaced nothing.
    assert _ask_all(desk, "web", 1, "A") == {0}
    assert read["messages"] == 2


def test_names_with_one_address_are_read_by_dnspython_once(desk: Desk, read: Counter[str]) -> None:
    for number in range(200):
        desk.add(record("net1", NET1, f"c{number}", f"10.1.1.{number}"))
    assert _ask_all(desk, "c{}.one.test", 200) == _ask_all(desk, "c{}", 200) == {0}
    assert _ask_all(desk, "c{}", 200, "AAAA") == {0}
    # One of each type.
    assert read["messages"] == 2


def test_a_name_that_comes_is_denied_no_longer(desk: Desk) -> None:
    queries = [dns.message.make_query(each, "A").to_wire() for each in ("other", "new", "new.one.test")]
    assert [_served(desk, each)[0][3] & 15 for each in queries] == [3, 3, 3]
    added = desk.add(record("net1", NET1, "new", "10.1.0.99"))
    assert [_served(desk, each)[0][3] & 15 for each in queries] == [3, 0, 0]
    # An asker without names is refused, also after it was denied.
    desk.remove(added)
    assert [_served(desk, each, asker="10.1.0.99")[0][3] & 15 for each in queries] == [5, 5, 5]

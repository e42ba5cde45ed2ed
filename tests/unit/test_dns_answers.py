"""The DNS server's answers, from records alone: what each asker sees, and what is never forwarded."""

from __future__ import annotations

from itertools import count
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from cni.dns.book import HOST, Book
from cni.dns.names import Key, Record, Settings
from cni.dns.server.answer import answer

NET1 = Settings("one.test", ("10.1.0.1", "fd01::1"), ("10.1.0.0/24", "fd01::/64"))
NET2 = Settings("two.test", ("10.2.0.1",), ("10.2.0.0/24",))
INSIDE = Settings("in.test", ("10.3.0.1",), ("10.3.0.0/24",), is_internal=True)
_clock = count()


def record(network: str, settings: Settings, name: str, *addresses: str, **keys: Any) -> Record:
    """Return the record of a container that has the name as its ID, too; `names` are more names."""
    names = (name, *keys.pop("names", ()))
    key = Key(network, keys.pop("container_id", name), keys.pop("ifname", "eth0"))
    return Record(key, names, addresses, settings, next(_clock))


def world() -> Book:
    book = Book()
    for each in [
        record("net1", NET1, "web", "10.1.0.10", "fd01::10", names=("www", "shared", "a.b")),
        record("net1", NET1, "db", "10.1.0.11", names=("shared",)),
        record("net2", NET2, "web", "10.2.0.10", container_id="web2"),
        record("net2", NET2, "cache", "10.2.0.11"),
        # On both networks, first on the second.
        record("net2", NET2, "both", "10.2.0.50", container_id="both"),
        record("net1", NET1, "both", "10.1.0.50", container_id="both", ifname="eth1"),
        record("net3", INSIDE, "quiet", "10.3.0.10"),
    ]:
        book.add(each)
    return book


def ask(
    book: Book, asker: str, gateway: str, name: str, kind: str = "A", *, is_tcp: bool = False, **keys: Any
) -> Any:
    """Return the code and the records of an answer; "forward" or None."""
    query = dns.message.make_query(name, kind, **keys)
    replies = answer(book, book.view(asker, gateway), query.to_wire(), is_tcp=is_tcp)
    if not replies:
        return "forward" if replies is None else None
    shown = dns.message.from_wire(replies[0])
    assert shown.id == query.id
    assert shown.question == query.question
    return dns.rcode.to_text(shown.rcode()), sorted(str(item) for each in shown.answer for item in each)


WEB, OTHER, BOTH1, BOTH2, QUIET = "10.1.0.10", "10.2.0.11", "10.1.0.50", "10.2.0.50", "10.3.0.10"
NO: Any = ("NXDOMAIN", [])
EMPTY: Any = ("NOERROR", [])
REFUSED: Any = ("REFUSED", [])


@pytest.mark.parametrize(
    ("asker", "gateway", "name", "kind", "wanted"),
    [
        # A container on one network.
        (WEB, "10.1.0.1", "db", "A", ("NOERROR", ["10.1.0.11"])),
        (WEB, "10.1.0.1", "db.one.test", "A", ("NOERROR", ["10.1.0.11"])),
        (WEB, "10.1.0.1", "DB.One.TEST", "A", ("NOERROR", ["10.1.0.11"])),
        (WEB, "10.1.0.1", "www", "A", ("NOERROR", ["10.1.0.10"])),
        (WEB, "10.1.0.1", "a.b", "A", ("NOERROR", ["10.1.0.10"])),
        (WEB, "10.1.0.1", "a.b.one.test", "A", ("NOERROR", ["10.1.0.10"])),
        (WEB, "10.1.0.1", "shared", "A", ("NOERROR", ["10.1.0.10", "10.1.0.11"])),
        (WEB, "10.1.0.1", "web", "AAAA", ("NOERROR", ["fd01::10"])),
        (WEB, "10.1.0.1", "db", "AAAA", EMPTY),
        (WEB, "10.1.0.1", "db", "MX", EMPTY),
        (WEB, "10.1.0.1", "one.test", "SOA", EMPTY),
        (WEB, "10.1.0.1", "none", "A", NO),
        (WEB, "10.1.0.1", "none.one.test", "A", NO),
        (WEB, "10.1.0.1", "sub.db.one.test", "A", NO),
        (WEB, "10.1.0.1", "10.0.1.10.in-addr.arpa", "PTR", ("NOERROR", ["web.one.test."])),
        (WEB, "10.1.0.1", "99.0.1.10.in-addr.arpa", "PTR", NO),
        (WEB, "10.1.0.1", "0.1.10.in-addr.arpa", "SOA", NO),
        (WEB, "10.1.0.1", "9.9.9.9.in-addr.arpa", "PTR", "forward"),
        (WEB, "10.1.0.1", "example.com", "A", "forward"),
        (WEB, "10.1.0.1", "example.com", "HTTPS", "forward"),
        (WEB, "10.1.0.1", "db.one.test", "AXFR", REFUSED),
        # Names of a network that it is not on.
        (WEB, "10.1.0.1", "cache", "A", NO),
        (WEB, "10.1.0.1", "cache.two.test", "A", NO),
        (WEB, "10.2.0.1", "cache", "A", NO),
        (WEB, "10.2.0.1", "web", "A", ("NOERROR", ["10.1.0.10"])),
        (WEB, "10.1.0.1", "11.0.2.10.in-addr.arpa", "PTR", NO),
        # One name on two networks; a container on both has them in the order of attachment.
        (OTHER, "10.2.0.1", "web", "A", ("NOERROR", ["10.2.0.10"])),
        (BOTH2, "10.2.0.1", "web", "A", ("NOERROR", ["10.2.0.10"])),
        (BOTH1, "10.1.0.1", "web", "A", ("NOERROR", ["10.2.0.10"])),
        (BOTH1, "10.1.0.1", "web.one.test", "A", ("NOERROR", ["10.1.0.10"])),
        (BOTH1, "10.1.0.1", "cache", "A", ("NOERROR", ["10.2.0.11"])),
        (BOTH1, "10.1.0.1", "11.0.2.10.in-addr.arpa", "PTR", ("NOERROR", ["cache.two.test."])),
        # An internal network, an unknown asker, and the host.
        (QUIET, "10.3.0.1", "quiet", "A", ("NOERROR", ["10.3.0.10"])),
        (QUIET, "10.3.0.1", "example.com", "A", NO),
        ("10.1.0.77", "10.1.0.1", "web", "A", REFUSED),
        ("10.1.0.77", "10.1.0.1", "example.com", "A", REFUSED),
        (HOST, "10.2.0.1", "web", "A", ("NOERROR", ["10.2.0.10"])),
        (HOST, "10.1.0.1", "web", "A", ("NOERROR", ["10.1.0.10"])),
        (HOST, "10.1.0.1", "cache.two.test", "A", ("NOERROR", ["10.2.0.11"])),
        (HOST, "10.1.0.1", "example.com", "A", "forward"),
    ],
)
def test_an_asker_sees_its_own_networks(asker: str, gateway: str, name: str, kind: str, wanted: Any) -> None:
    assert ask(world(), asker, gateway, name, kind) == wanted


def test_an_address_is_the_newest_containers() -> None:
    # An earlier container has ended without a DEL, and its address was leased again.
    book = Book()
    left = book.add(record("net1", NET1, "left", "10.1.0.5"))
    new = book.add(record("net1", NET1, "new", "10.1.0.5"))
    assert ask(book, "10.1.0.5", "10.1.0.1", "left") == EMPTY
    assert ask(book, "10.1.0.5", "10.1.0.1", "new") == ("NOERROR", ["10.1.0.5"])
    book.remove(new)
    assert ask(book, "10.1.0.5", "10.1.0.1", "left") == ("NOERROR", ["10.1.0.5"])
    book.remove(left)
    assert ask(book, "10.1.0.5", "10.1.0.1", "left") == REFUSED
    assert book.zones == {}


def test_networks_of_one_subnet_are_told_apart_by_the_gateway() -> None:
    book = Book()
    for gateway, name in (("10.1.0.1", "first"), ("10.1.0.2", "second")):
        settings = NET1._replace(domain=f"{name}.test", gateways=(gateway,))
        book.add(record(name, settings, name, "10.1.0.5"))
    assert ask(book, "10.1.0.5", "10.1.0.1", "first") == ("NOERROR", ["10.1.0.5"])
    assert ask(book, "10.1.0.5", "10.1.0.1", "second") == NO
    assert ask(book, "10.1.0.5", "10.1.0.2", "second") == ("NOERROR", ["10.1.0.5"])
    # At another address nobody knows which of them asks.
    assert ask(book, "10.1.0.5", "10.9.0.1", "first") == REFUSED


def test_the_addresses_of_a_shared_name_take_turns() -> None:
    book = world()
    query = dns.message.make_query("shared", "A").to_wire()
    replies = answer(book, book.view(WEB, "10.1.0.1"), query, is_tcp=False)
    assert replies is not None
    firsts = [str(dns.message.from_wire(each).answer[0][0]) for each in replies]
    assert sorted(firsts) == ["10.1.0.10", "10.1.0.11"]


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (400, 512), (1000, 1000), (4096, 1232)])
def test_a_long_answer_is_cut_to_what_the_asker_takes(payload: int | None, limit: int) -> None:
    book = Book()
    for at in range(100):
        book.add(record("net1", NET1, f"c{at}", f"10.1.0.{at + 2}", names=("all",)))
    edns = {"use_edns": 0, "payload": payload} if payload else {}
    query = dns.message.make_query("all.one.test", "A", **edns)  # type: ignore[arg-type]
    view = book.view("10.1.0.2", "10.1.0.1")
    for wire in answer(book, view, query.to_wire(), is_tcp=False) or ():
        cut = dns.message.from_wire(wire)
        assert len(wire) <= limit
        assert cut.flags & dns.flags.TC
        # Resolvers without TCP use what is there.
        assert len(cut.answer[0]) > 10
        assert (cut.edns >= 0) == bool(payload)
    whole = answer(book, view, query.to_wire(), is_tcp=True) or ()
    assert {len(dns.message.from_wire(each).answer[0]) for each in whole} == {100}


def test_unknown_edns_and_other_operations_have_their_own_errors() -> None:
    book = world()
    view = book.view(WEB, "10.1.0.1")
    bad = dns.message.make_query("web", "A", use_edns=1)
    assert ask(book, WEB, "10.1.0.1", "web", use_edns=1) == ("BADVERS", [])
    wire = bytearray(bad.to_wire())
    wire[2] |= 0x20
    [reply] = answer(book, view, bytes(wire), is_tcp=False) or ()
    assert (reply[:2], reply[3] & 15) == (bad.to_wire()[:2], dns.rcode.NOTIMP)
    # An answer is never answered: two servers would go on for ever.
    wire[2] |= 0x80
    assert answer(book, view, bytes(wire), is_tcp=False) == ()
    assert answer(book, view, b"", is_tcp=False) == ()

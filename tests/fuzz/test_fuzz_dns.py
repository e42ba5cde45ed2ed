"""Packets that are no queries, to the DNS server's answers: each is refused, dropped or answered."""

from __future__ import annotations

import os
import random

import dns.message
import dns.rcode

from cni.dns.server.answer import answer
from tests.unit.test_dns_answers import WEB, world

CASES = int(os.environ.get("PYCNI_FUZZ", "400"))
SEED = int(os.environ.get("PYCNI_FUZZ_SEED", "1"))


def test_malformed_packets_are_refused_or_dropped() -> None:
    book = world()
    chance = random.Random(SEED)  # noqa: S311 - chance for tests
    samples = [
        dns.message.make_query(name, kind, use_edns=edns).to_wire()
        for name in ("web", "example.com", "10.0.1.10.in-addr.arpa", "x" * 63 + ".one.test", ".")
        for kind in ("A", "AAAA", "PTR", "ANY")
        for edns in (0, False)
    ]
    seen: set[str] = set()
    for _ in range(CASES):
        wire = bytearray(chance.choice(samples))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(2, len(wire))
            change = chance.randrange(4)
            if change == 0:
                wire[at] = chance.randrange(256)
            elif change == 1:
                del wire[at:]
                wire += bytes(2)
            elif change == 2:
                wire[at:at] = chance.randbytes(chance.randrange(1, 40))
            else:
                wire[at : at + 2] = b"\xc0\x0c"
        replies = answer(book, book.view(WEB, "10.1.0.1"), bytes(wire), is_tcp=chance.random() < 0.3)
        for each in replies or ():
            assert each[:2] == bytes(wire[:2])
            assert each[2] & 0x80
            seen.add(dns.rcode.to_text(dns.rcode.Rcode(each[3] & 15)))
        seen.add("forwarded" if replies is None else "answered")
    assert {"FORMERR", "forwarded", "answered", "NOERROR"} <= seen

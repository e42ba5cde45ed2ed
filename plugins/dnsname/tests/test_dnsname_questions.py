"""The questions that peers answer wrongly, asked by both families and both protocols; and what stays here.

A server of others logs the names that it is asked. No name of a container, no name without a dot and no
address of a network may be among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.names_world import (
    ELSEWHERE,
    EMPTY,
    NO,
    REFUSED,
    Foreign,
    Network,
    Question,
    Shown,
    ask_all,
)

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


def _one(*addresses: str) -> Shown:
    return ("NOERROR", sorted(addresses))


def test_questions_by_both_families_and_protocols(host: Host) -> None:
    outside = host.outside
    first = Network(host, 1, upstreams=[outside.address])
    second = Network(host, 2, upstreams=[outside.address])
    web, db = first.attach("web", "www", "shared"), first.attach("db", "shared")
    both, other = first.attach("both"), second.attach("other")
    second.attach("both", ifname="eth1")
    (v4, v6), db4 = web.addresses, db.addresses[0]
    elsewhere = _one(ELSEWHERE)
    # Who asks, what, and the right answer.
    table = [
        (db, "web", "A", _one(v4)),
        (db, "web", "AAAA", _one(v6)),
        (db, "web.net1.test", "A", _one(v4)),
        (db, "web.net1.test", "AAAA", _one(v6)),
        (db, "WEB", "A", _one(v4)),
        (db, "Web.Net1.TEST", "AAAA", _one(v6)),
        (db, "www", "A", _one(v4)),
        (db, "www.net1.test", "A", _one(v4)),
        (db, "shared", "A", _one(v4, db4)),
        (db, "shared", "AAAA", _one(v6, db.addresses[1])),
        (db, "web", "MX", EMPTY),
        (db, "web.net1.test", "TXT", EMPTY),
        (db, "none", "A", NO),
        (db, "none.net1.test", "A", NO),
        (db, _reverse(v4), "PTR", _one("web.net1.test.")),
        (db, _reverse(v6), "PTR", _one("web.net1.test.")),
        (db, "200.0.1.10.in-addr.arpa", "PTR", NO),
        (db, _reverse("fd01::dead"), "PTR", NO),
        (db, "other", "A", NO),
        (db, "other.net2.test", "A", NO),
        (db, _reverse(other.addresses[0]), "PTR", NO),
        (both, "other", "A", _one(other.addresses[0])),
        (both, "other.net2.test", "A", _one(other.addresses[0])),
        (both, "web", "A", _one(v4)),
        (db, "example.com", "A", elsewhere),
        (db, "long.example.com", "A", elsewhere),
    ]
    with Foreign(outside.sandbox, outside.address) as foreign:
        for asker in (db, both):
            rows = [row for row in table if row[0] is asker]
            asked = [
                Question(name, kind, server, is_tcp)
                for server in (first.gateway, first.gateway6)
                for is_tcp in (False, True)
                for _, name, kind, _ in rows
            ]
            wanted = [row[-1] for row in rows] * 4
            given = ask_all(asker.sandbox, asked)
            # Of a long answer by UDP there is the request to ask by TCP.
            wrong = [
                (question, answer)
                for question, answer, right in zip(asked, given, wanted, strict=True)
                if answer != (EMPTY if question.name.startswith("long") and not question.is_tcp else right)
            ]
            assert wrong == []
        assert set(foreign.asked) == {"example.com", "long.example.com"}


def _reverse(address: str) -> str:
    from ipaddress import ip_address

    return ip_address(address).reverse_pointer


def test_who_asks_decides(host: Host) -> None:
    outside = host.outside
    first = Network(host, 1, upstreams=[outside.address])
    second = Network(host, 2, upstreams=[outside.address])
    web, other = first.attach("web"), second.attach("other")
    stranger = first.prepare("stranger")
    with Foreign(outside.sandbox, outside.address) as foreign:
        # At the gateway of a network that it is not on, a container sees its own.
        there = [Question("other", server="10.2.0.1"), Question("web", server="10.2.0.1")]
        assert ask_all(web.sandbox, there) == [NO, _one(web.addresses[0])]
        # No name was published for its address.
        asked = [Question(name, is_tcp=tcp) for name in ("web", "example.com") for tcp in (False, True)]
        assert ask_all(stranger.sandbox, asked) == [REFUSED] * 4
        assert foreign.asked == []
        # The host may ask everything, in both families.
        names = [
            ("web.net1.test", "10.1.0.1"),
            ("other.net2.test", "10.1.0.1"),
            ("web", "fd01::1"),
            ("other", "fd02::1"),
        ]
        given = ask_all(host, [Question(name, server=server) for name, server in names])
        assert given == [_one((web if "web" in name else other).addresses[0]) for name, _ in names]

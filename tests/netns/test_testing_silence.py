"""Connections that are answered, refused or dropped are told apart without a time limit."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest

from cni.testing import silence
from cni.testing.silence import Way, exchange_echoes, list_answered
from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("cold")

SERVED, CLOSED, DROPPED, UNANSWERED = 81, 82, 83, 84
RULES = f"""
table inet drops {{
    chain forward {{
        type filter hook forward priority 0
        tcp dport {DROPPED} drop
        tcp sport {UNANSWERED} drop
    }}
}}
"""
ROUNDS = 10


def _make_ends(host: Host) -> tuple[list[Container], list[str]]:
    """Return two containers of different networks, and the gateways of the first."""
    net = Wired(host)
    other = Wired(host, "net2", "cni1", IPv4Network("10.23.0.0/16"), IPv6Network("fd00:23::/64"))
    ends = [net.container(1), other.container(2)]
    for gateway in (other.gateway, other.gateway6):
        ends[1].sandbox.call(exchange_echoes, gateway)
    return ends, [net.gateway, net.gateway6]


def test_what_is_not_served_is_not_answered(host: Host) -> None:
    (source, target), gateways = _make_ends(host)
    host.run(["nft", "-f", "-"], RULES)
    addresses = [target.address, target.address6]
    ways = [
        Way(address, port, via)
        for address, via in zip(addresses, gateways, strict=True)
        for port in (SERVED, CLOSED, DROPPED, UNANSWERED)
    ]
    serve = target.sandbox.serve
    with serve(SERVED), serve(DROPPED), serve(UNANSWERED):
        for _ in range(ROUNDS):
            assert source.sandbox.call(list_answered, ways) == [True, False, False, False] * 2


def test_the_first_echoes_are_behind_each_answer(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further tries are for what the network loses. No answer is later than the echoes."""
    monkeypatch.setattr(silence, "_TRIES", 1)
    (source, target), gateways = _make_ends(host)
    addresses = [target.address, target.address6]
    ways = [Way(*each, via) for each, via in zip(((a, SERVED) for a in addresses), gateways, strict=True)]
    with target.sandbox.serve(SERVED):
        for _ in range(ROUNDS):
            # Each round finds the neighbours again. The test process forks, so that it has one try.
            for inside in (host, source.sandbox, target.sandbox):
                inside.run(["ip", "neigh", "flush", "all"])
            assert source.sandbox.call(lambda: list_answered(ways)) == [True, True]

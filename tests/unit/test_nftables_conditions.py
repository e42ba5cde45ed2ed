"""Conditions are matches of one rule, whatever is written into them."""

from __future__ import annotations

import pytest

from cni.errors import CniError, Code
from cni.firewall.nftables import conditions


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("ip", "saddr", "10.0.0.0/8"),
        ("ip saddr != 10.0.0.0/8", "tcp dport { 80, 443 }"),
        ("ip", "saddr", "!=", "{", "1.2.3.4,", "5.6.7.8", "}"),
        ("ip6", "saddr", "fd00::/8"),
        ("iifname", '"eth0"'),
        ("iifname", '"drop"'),
        ("meta", "mark", "&", "0xff", "==", "0x1"),
        ("meta mark & 0x1 == 0x1",),
        ("ct", "state", "new,related"),
        ("tcp dport 80-90",),
        ("ip saddr @allowed",),
    ],
)
def test_matches_are_taken(given: tuple[str, ...]) -> None:
    conditions.check(given, "conditionsV4")


@pytest.mark.parametrize(
    "token",
    [
        "10.0.0.0/8; flush ruleset",
        "10.0.0.0/8\nflush ruleset",
        "10.0.0.0/8 # the rest",
        "10.0.0.0/8 \\",
        "accept",
        "ip saddr 1.2.3.4 drop",
        "goto elsewhere",
        "meta mark set 1",
        "dnat to 1.2.3.4",
        "masquerade",
        "counter",
        "log",
        'log prefix "x"',
        '"eth0',
        "$(reboot)",
        "`reboot`",
        "include",
        "ip saddr vmap @x",
        "",
    ],
)
def test_a_token_that_is_no_match_is_refused_by_name(token: str) -> None:
    with pytest.raises(CniError) as caught:
        conditions.check(("ip saddr 10.0.0.1", token), "conditionsV4")
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == f'invalid token {token!r} in "conditionsV4"'


@pytest.mark.parametrize("given", [("{",), ("}", "{"), ("tcp dport { 80",), ("{ { 80 } }",)])
def test_braces_that_do_not_match_are_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(CniError, match="braces must come in pairs"):
        conditions.check(given, "conditionsV6")

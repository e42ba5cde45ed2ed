"""The chains that may drop what the host receives or forwards, whichever program has made them."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.kernel.attributes import attributes, shown_text, text
from cni.kernel.nfnetlink import SUBSYS_NFTABLES, Message, kept

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE, CHAIN = "filter", "INPUT"
# <linux/netfilter.h>: NFPROTO_INET, and the hooks.
INET = 1
INPUT, FORWARD = 1, 2
# <linux/netfilter/nf_tables.h>: NFT_MSG_GETCHAIN, attributes of chains and of hooks.
_GETCHAIN = SUBSYS_NFTABLES << 8 | 4
_TABLE_NAME, _CHAIN_NAME, _HOOK, _POLICY, _USE, _TYPE = 1, 3, 4, 5, 6, 7
_HOOK_NUMBER = 1
_DROP = 0
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
# The tables of legacy iptables that are loaded.
_LEGACY = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
# What nft's scripts take as a name.
_WORD = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*")


class Hooked(NamedTuple):
    """A chain of nf_tables with a hook: its family, table and name, and how many rules it has."""

    family: int
    table: str
    chain: str
    rules: int
    has_drop_policy: bool


def filters_input(version: int) -> bool:
    """Return whether iptables' chain INPUT exists in an IP version. Raise CniError without an answer."""
    if has_chain(_FAMILIES[version], TABLE, CHAIN):
        return True
    try:
        return TABLE in _LEGACY[version].read_text().split()
    except OSError:
        return False


def has_chain(family: int, table: str, chain: str) -> bool:
    """Return whether a chain of nf_tables exists. Raise CniError without an answer."""
    payload = text(_TABLE_NAME, table) + text(_CHAIN_NAME, chain)
    return kept().find(Message(f"find chain {chain} of {table}", _GETCHAIN, family, payload)) is not None


def list_hooked(hook: int) -> Iterator[Hooked]:
    """Yield the chains of nf_tables that filter at a hook. This reads all chains of the host.

    Packets pass only if each of these chains accepts them.
    """
    for family in (INET, *_FAMILIES.values()):
        for reply in kept().dump(Message("list chains", _GETCHAIN, family)):
            parts = attributes(reply)
            table, name, kind = (
                shown_text(parts.get(each, b"")) for each in (_TABLE_NAME, _CHAIN_NAME, _TYPE)
            )
            number = attributes(parts.get(_HOOK, b"")).get(_HOOK_NUMBER)
            if number is None or int.from_bytes(number, "big") != hook or kind != "filter":
                continue
            if _WORD.fullmatch(table) and _WORD.fullmatch(name):
                policy, rules = (int.from_bytes(parts.get(each, b"\1"), "big") for each in (_POLICY, _USE))
                yield Hooked(family, table, name, rules, policy == _DROP)

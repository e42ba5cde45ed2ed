"""Whether iptables, of any variant, may drop what the host receives: one question to the kernel."""

from __future__ import annotations

import socket
from pathlib import Path

from cni.kernel.attributes import text
from cni.kernel.nfnetlink import SUBSYS_NFTABLES, Message, kept

TABLE, CHAIN = "filter", "INPUT"
# <linux/netfilter/nf_tables.h>: NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME.
_GETCHAIN = SUBSYS_NFTABLES << 8 | 4
_TABLE_NAME, _CHAIN_NAME = 1, 3
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
# The tables of legacy iptables that are loaded.
_LEGACY = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


def filters_input(version: int) -> bool:
    """Return whether the chain INPUT exists in an IP version. Raise CniError without an answer."""
    payload = text(_TABLE_NAME, TABLE) + text(_CHAIN_NAME, CHAIN)
    question = Message(f"find chain {CHAIN} of IPv{version}", _GETCHAIN, _FAMILIES[version], payload)
    if kept().find(question) is not None:
        return True
    try:
        return TABLE in _LEGACY[version].read_text().split()
    except OSError:
        return False

"""Which variants of iptables have rules of ours, told by the kernel without a child process.

What PATH gives may have changed since an ADD: from legacy to nf_tables, or to none at all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import nft

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.firewall.iptables_exec import Tool

# Tables that legacy iptables has loaded in this namespace, by IP version.
_LEGACY_TABLES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}


def list_with_chain(tool: Tool, chain: str) -> list[Tool]:
    """Give the variants that have a chain in table nat; legacy is given whenever it has that table.

    One whose own program is missing is replaced by `tool`, so that its user hears of it.
    """
    return _list(tool, lambda family: nft.find_chain(family, "nat", chain) is not None)


def list_with_table(tool: Tool) -> list[Tool]:
    """Give the variants that have a table nat, as `list_with_chain` does."""
    return _list(tool, lambda family: nft.has_table(family, "nat"))


def _list(tool: Tool, is_in_nftables: Callable[[int], bool]) -> list[Tool]:
    variants = []
    try:
        if is_in_nftables(_FAMILIES[tool.version]):
            variants.append("-nft")
        if _is_legacy_in_use(tool.version):
            variants.append("-legacy")
    except (CniError, OSError):
        return [tool] if tool.find() else []
    tools = [replace(tool, variant=variant) for variant in variants]
    return list(dict.fromkeys(each if each.find() else tool for each in tools))


def _is_legacy_in_use(version: int) -> bool:
    try:
        return "nat" in _LEGACY_TABLES[version].read_text(encoding="ascii").split()
    except FileNotFoundError:
        # This kernel has no legacy iptables, or has not loaded it.
        return False

"""Which variants of iptables have rules of ours, told by the kernel without a child process.

Rules of the nf_tables variant are also taken away here in the kernel's own words: a child takes 10 to 13 ms
for that, nearly all of it for closing its socket, and netlink 0.1 ms.

What PATH gives may have changed since an ADD: from legacy to nf_tables, or to none at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.iptables_exec import Tool
    from cni.firewall.iptables_rules import Shared

# Tables that legacy iptables has loaded in this namespace, by IP version.
_LEGACY_TABLES = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_TABLE = "nat"
_TRIES = 50


def list_with_table(tool: Tool) -> list[Tool]:
    """Give the variants that have a table nat.

    One whose own program is missing is replaced by `tool`, so that its user hears of it.
    """
    variants = []
    try:
        if nft.has_table(_FAMILIES[tool.version], _TABLE):
            variants.append("-nft")
        if _is_legacy_in_use(tool.version):
            variants.append("-legacy")
    except (CniError, OSError):
        return [tool] if tool.find() else []
    return list(dict.fromkeys(_of_variant(tool, variant) for variant in variants))


def find_chain(tool: Tool, chain: str) -> tuple[bool, list[Tool]]:
    """Tell whether the nf_tables variant has a chain; gives the others that may have it.

    Where the kernel does not tell, that is whatever PATH has.
    """
    try:
        is_in_nftables = nft.find_chain(_FAMILIES[tool.version], _TABLE, chain) is not None
        return is_in_nftables, [_of_variant(tool, "-legacy")] if _is_legacy_in_use(tool.version) else []
    except (CniError, OSError):
        return False, [tool] if tool.find() else []


def _of_variant(tool: Tool, variant: str) -> Tool:
    found = replace(tool, variant=variant)
    return found if found.find() else tool


def has_once(version: int, shared: Sequence[Shared]) -> bool:
    """Tell whether the nf_tables variant has shared chains with as many rules and jumps as they should have.

    False also where there is another variant only. What the rules say is not looked at.
    """
    try:
        return all(_has_once(_FAMILIES[version], each) for each in shared)
    except CniError:
        return False


def _has_once(family: int, shared: Shared) -> bool:
    if shared.rules and shared.jumps:
        # Rules and jumps hold a chain; POSTROUTING, where the jump is, may have thousands of rules.
        found = nft.find_chain(family, _TABLE, shared.chain)
        return found is not None and found.use == len(shared.rules) + len(shared.jumps)
    named = f"{shared.chain}\0".encode()
    return all(
        sum(named in rule.raw for rule in nft.list_rules(family, _TABLE, jump.rule.chain)) == 1
        for jump in shared.jumps
    ) and (not shared.rules or len(nft.list_rules(family, _TABLE, shared.chain)) == len(shared.rules))


def remove_by_netlink(tool: Tool, chain: str, parent: str) -> None:
    """Remove a chain of the nf_tables variant, if it is there, and the rules of `parent` that lead to it.

    A rule that does has the chain's name in it, whatever else that says. Raises CniError 11 or 100.
    """
    family = _FAMILIES[tool.version]
    named = f"{chain}\0".encode()
    for _ in range(_TRIES):
        leading = [rule for rule in nft.list_rules(family, _TABLE, parent) if named in rule.raw]
        whole = [nft.flush_chain(family, _TABLE, chain), nft.delete_chain(family, _TABLE, chain)]
        done = nft.commit_deletions([*map(nft.delete_rule, leading), *whole])
        if done or nft.find_chain(family, _TABLE, chain) is None:
            return
    raise CniError(
        Code.TRY_AGAIN, f"could not remove chain {chain} of table nat: others use it or kept changing it"
    )


def _is_legacy_in_use(version: int) -> bool:
    try:
        with open(_LEGACY_TABLES[version], encoding="ascii") as names:  # noqa: PTH123 - on the hot path
            return "nat\n" in names
    except FileNotFoundError:
        # This kernel has no legacy iptables, or has not loaded it.
        return False

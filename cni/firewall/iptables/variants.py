"""Which variants of iptables have rules of ours, told by the kernel without a child process.

Rules of the nf_tables variant are also taken away here in the kernel's own words: a child takes 10 to 13 ms
for that, nearly all of it for closing its socket, and netlink 0.1 ms.

What PATH gives may have changed since an ADD: from legacy to nf_tables, or to none at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.iptables import legacy
from cni.firewall.iptables.rules import is_containers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.iptables.execute import Tool
    from cni.firewall.iptables.rules import Shared

_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
_TABLE = "nat"
_TRIES = 50
# More rules than one or two dozen ports need, the answers about which have room in the socket's buffer; and
# numbers that others may have taken in between.
_MOST_TOGETHER = 64
_BETWEEN = 4


def list_with_table(tool: Tool) -> list[Tool]:
    """Give the variants that have a table nat, each as a program that can list it.

    Raises LeftError when a variant has chains of containers and there is no program for it.
    """
    family = _FAMILIES[tool.version]
    found = []
    try:
        if nft.has_table(family, _TABLE):
            found.append(("-nft", nft.list_chains(family, _TABLE)))
        if legacy.is_loaded(tool.version):
            found.append(("-legacy", list(legacy.read(tool.version).chains)))
    except (CniError, OSError):
        return [tool] if tool.find() else []
    variants = []
    for variant, chains in found:
        ours = [chain for chain in chains if is_containers(chain)]
        if ours:
            variants.append(_of_variant(tool, variant, ours))
    return list(dict.fromkeys(variants))


def may_have_chain(version: int, chain: str) -> bool:
    """Return whether any variant has a chain; True, too, where a comment of legacy iptables names it.

    Raises CniError or OSError where the kernel does not tell.
    """
    if nft.find_chain(_FAMILIES[version], _TABLE, chain) is not None:
        return True
    return legacy.is_loaded(version) and legacy.may_have_chain(version, chain)


def find_chain(tool: Tool, chain: str) -> tuple[bool, list[Tool]]:
    """Tell whether the nf_tables variant has a chain; gives the others that may have it.

    Where the kernel does not tell, that is whatever PATH has. Raises LeftError when legacy iptables has the
    chain and there is no program for it.
    """
    try:
        is_in_nftables = nft.find_chain(_FAMILIES[tool.version], _TABLE, chain) is not None
        is_in_legacy = legacy.is_loaded(tool.version) and legacy.may_have_chain(tool.version, chain)
    except (CniError, OSError):
        return False, [tool] if tool.find() else []
    return is_in_nftables, [_of_variant(tool, "-legacy", [chain])] if is_in_legacy else []


def list_having(tool: Tool, chain: str) -> list[Tool]:
    """Return the variants that have a chain, or may have it, each as a program that can change it."""
    is_in_nftables, others = find_chain(tool, chain)
    return [*([_of_variant(tool, "-nft", [chain])] if is_in_nftables else []), *others]


def raise_if_left(error: CniError, version: int, chain: str) -> None:
    """Raise LeftError in the place of `error` when legacy iptables certainly has the chain still."""
    from cni.firewall.rules_remain import LeftError

    try:
        is_left = legacy.is_loaded(version) and chain in legacy.read(version).chains
    except (CniError, OSError):
        return
    if is_left and error.code != Code.TRY_AGAIN:
        raise LeftError(error.code, error.msg, error.details) from error


def _of_variant(tool: Tool, variant: str, chains: Sequence[str]) -> Tool:
    """Give the program for a variant that has `chains` of containers."""
    found = tool._replace(variant=variant)
    if found.find():
        return found
    from cni.firewall.iptables import programs
    from cni.firewall.rules_remain import LeftError

    program = tool.find()
    if program and programs.variant_of(program) == programs.VARIANTS[variant]:
        return tool
    what = f"chain {chains[0]}" if len(chains) == 1 else f"{len(chains)} chains, {chains[0]} among them,"
    raise LeftError(
        Code.FIREWALL,
        f"{what} of {found.name} cannot be removed: {found.name} is not installed",
        f"there is no {found.name}-restore on PATH; install it and call again",
    )


def has_once(version: int, shared: Sequence[Shared]) -> bool:
    """Tell whether a variant has shared chains with as many rules and jumps as they should have.

    What the rules say is not looked at.
    """
    try:
        if all(_has_once(_FAMILIES[version], each) for each in shared):
            return True
        if not legacy.is_loaded(version):
            return False
        table = legacy.read(version)
    except (CniError, OSError):
        return False
    return all(_has_legacy_once(table, each) for each in shared)


def _has_legacy_once(table: legacy.Table, shared: Shared) -> bool:
    jumps = (table.count_jumps(jump.rule.chain, shared.chain) == 1 for jump in shared.jumps)
    has_rules = not shared.rules or table.count_rules(shared.chain) == len(shared.rules)
    return shared.chain in table.chains and has_rules and all(jumps)


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


def _made_together(family: int, chain: str, parent: str) -> list[nft.Rule] | None:
    """Find the rules of `parent` that lead to a chain without listing it, which may have thousands.

    What is made in one transaction has numbers in a row, and the kernel counts what holds a chain. None
    unless all of that was found: it was made one by one, or there is no such chain.
    """
    found = nft.find_chain(family, _TABLE, chain)
    if found is None or found.use > _MOST_TOGETHER:
        return None
    wanted = found.use - len(nft.list_rules(family, _TABLE, chain))
    numbers = range(found.handle + 1, found.handle + found.use + _BETWEEN)
    named = f"{chain}\0".encode()
    leading = [rule for rule in nft.find_rules(family, _TABLE, parent, numbers) if named in rule.raw]
    return leading if len(leading) == wanted else None


def remove_by_netlink(tool: Tool, chain: str, parent: str) -> None:
    """Remove a chain of the nf_tables variant, if it is there, and the rules of `parent` that lead to it.

    A rule that does has the chain's name in it, whatever else that says. Raises CniError 11 or 100.
    """
    family = _FAMILIES[tool.version]
    named = f"{chain}\0".encode()
    for _ in range(_TRIES):
        leading = _made_together(family, chain, parent)
        if leading is None:
            leading = [rule for rule in nft.list_rules(family, _TABLE, parent) if named in rule.raw]
        whole = [nft.flush_chain(family, _TABLE, chain), nft.delete_chain(family, _TABLE, chain)]
        done = nft.commit_deletions([*map(nft.delete_rule, leading), *whole])
        if done or nft.find_chain(family, _TABLE, chain) is None:
            return
    raise CniError(
        Code.TRY_AGAIN, f"could not remove chain {chain} of table nat: others use it or kept changing it"
    )

"""Ask the kernel which variants of iptables have rules of ours, without a child process.

Rules of the nf_tables variant are also removed here, by netlink in 0.1 ms. A child process takes 10 to 13 ms,
nearly all of it to close its socket.

The iptables on PATH may differ from that of the ADD: another variant, or none at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.intents import RulesRemainError
from cni.firewall.iptables import legacy
from cni.firewall.iptables.execute import VARIANTS, variant_of
from cni.firewall.iptables.rules import POSTROUTING, is_containers, refusal_comment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.firewall.iptables.execute import Tool
    from cni.result import IpAddress

_TRIES = 50
# As many rules as the socket's buffer can report, more than two dozen ports need; and how many numbers other
# programs may have taken in between.
_MOST_TOGETHER = 64
_BETWEEN = 4


def list_with_table(tool: Tool) -> list[Tool]:
    """List the variants that have the table, each as a program that can list it.

    Raise RulesRemainError if a variant has chains of containers and its program is not installed.
    """
    family = nft.FAMILIES[tool.version]
    found = []
    try:
        if nft.has_table(family, tool.table):
            found.append(("-nft", nft.list_chains(family, tool.table)))
        if legacy.is_loaded(tool.version, tool.table):
            found.append(("-legacy", list(legacy.read(tool.version, tool.table).chains)))
    except (CniError, OSError):
        return [tool] if tool.find() else []
    variants = []
    for variant, chains in found:
        ours = [chain for chain in chains if is_containers(chain)]
        if ours:
            variants.append(_of_variant(tool, variant, ours))
    return list(dict.fromkeys(variants))


def may_have_chain(version: int, table: str, chain: str) -> bool:
    """Return whether any variant has a chain, or legacy iptables a comment with its name.

    Raise CniError or OSError if the kernel does not answer.
    """
    if nft.find_chain(nft.FAMILIES[version], table, chain) is not None:
        return True
    return legacy.is_loaded(version, table) and legacy.may_have_chain(version, table, chain)


def list_existing(tool: Tool, chains: Iterable[str]) -> list[str]:
    """Return those of some chains that any variant has; all of them if the kernel does not answer."""
    wanted = list(dict.fromkeys(chains))
    family = nft.FAMILIES[tool.version]
    try:
        found = {name for _, _, name in nft.which_chains([(family, tool.table, each) for each in wanted])}
        if legacy.is_loaded(tool.version, tool.table):
            found |= legacy.read(tool.version, tool.table).chains.keys()
    except (CniError, OSError):
        return wanted
    return [each for each in wanted if each in found]


def find_chain(tool: Tool, chain: str) -> tuple[bool, list[Tool]]:
    """Return whether the nf_tables variant has a chain, and the other variants that may have it.

    If the kernel does not answer, return the iptables on PATH. Raise RulesRemainError if legacy iptables has
    the chain and its program is not installed.
    """
    try:
        is_in_nftables = nft.find_chain(nft.FAMILIES[tool.version], tool.table, chain) is not None
        is_in_legacy = legacy.is_loaded(tool.version, tool.table) and legacy.may_have_chain(
            tool.version, tool.table, chain
        )
    except (CniError, OSError):
        return False, [tool] if tool.find() else []
    return is_in_nftables, [_of_variant(tool, "-legacy", [chain])] if is_in_legacy else []


def list_having(tool: Tool, chain: str) -> list[Tool]:
    """Return the variants that have a chain, or may have it, each as a program that can change it."""
    is_in_nftables, others = find_chain(tool, chain)
    return [*([_of_variant(tool, "-nft", [chain])] if is_in_nftables else []), *others]


def raise_if_remains(error: CniError, tool: Tool, chain: str) -> None:
    """Raise RulesRemainError instead of `error` if legacy iptables still has the chain."""
    try:
        remains = legacy.is_loaded(tool.version, tool.table)
        remains = remains and chain in legacy.read(tool.version, tool.table).chains
    except (CniError, OSError):
        return
    if remains and error.code != Code.TRY_AGAIN:
        raise RulesRemainError(error.code, error.msg, error.details) from error


def _of_variant(tool: Tool, variant: str, chains: Sequence[str]) -> Tool:
    """Return the program for a variant that has `chains` of containers."""
    found = tool._replace(variant=variant)
    if found.find():
        return found
    program = tool.find()
    if program and variant_of(program) == VARIANTS[variant]:
        return tool
    shown = f"chain {chains[0]}" if len(chains) == 1 else f"{len(chains)} chains, {chains[0]} among them,"
    raise RulesRemainError(
        Code.FIREWALL,
        f"{shown} of {found.name} cannot be removed: {found.name} is not installed",
        f"there is no {found.name}-restore on PATH; install it and call again",
    )


def remove_by_netlink(
    tool: Tool, chain: str, parents: Sequence[str], addresses: Sequence[IpAddress] = ()
) -> None:
    """Remove a chain of the nf_tables variant, if it exists, and the rules of `parents` that lead to it.

    Such a rule contains the chain's name. `addresses` are those of `remove_chain`. Raise CniError 11 or 100.
    """
    family = nft.FAMILIES[tool.version]
    for _ in range(_TRIES):
        listed = nft.list_rules(family, tool.table, chain)
        leading = _find_leading(tool, chain, parents, len(listed))
        # The rules that name an address of the container.
        naming = [rule for rule in listed if b"DNAT\0" in rule.raw]
        naming += [rule for rule in leading if rule.chain == POSTROUTING]
        own = [rule for rule in naming if any(each.packed in rule.raw for each in addresses)]
        refusals = [refusal_comment(each).encode() + b"\0" for each in addresses]
        own += [rule for rule in listed if any(each in rule.raw for each in refusals)]
        if addresses and any(rule not in own for rule in naming):
            done = nft.commit_deletions(list(map(nft.delete_rule, own)))
        else:
            whole = [nft.flush_chain(family, tool.table, chain), nft.delete_chain(family, tool.table, chain)]
            done = nft.commit_deletions([*map(nft.delete_rule, leading), *whole])
        if done or nft.find_chain(family, tool.table, chain) is None:
            return
    raise CniError(
        Code.TRY_AGAIN,
        f"could not remove chain {chain} of table {tool.table}: others use it or kept changing it",
    )


def _find_leading(tool: Tool, chain: str, parents: Sequence[str], own: int) -> list[nft.Rule]:
    """Return the rules of `parents` that lead to a chain, which has `own` rules.

    Chains of parents may have thousands of rules. Rules of one transaction have consecutive numbers, and the
    kernel counts the users of a chain. The parents are listed only if not all are found so, because they were
    made one by one.
    """
    family = nft.FAMILIES[tool.version]
    named = f"{chain}\0".encode()
    found = nft.find_chain(family, tool.table, chain)
    if found is not None and found.use <= _MOST_TOGETHER:
        numbers = range(found.handle + 1, found.handle + found.use + _BETWEEN)
        asked = (nft.find_rules(family, tool.table, parent, numbers) for parent in parents)
        leading = [rule for rules in asked for rule in rules if named in rule.raw]
        if len(leading) == found.use - own:
            return leading
    listed = (rule for parent in parents for rule in nft.list_rules(family, tool.table, parent))
    return [rule for rule in listed if named in rule.raw]

"""Read which of some rules a table has: for CHECK and repair.

Netlink reads those of the nf_tables variant. The program, a process of 5 ms for each listing, is asked only
about chains in which a wanted rule may exist in another form.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import nft
from cni.firewall.iptables import netlink, variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.iptables.execute import Tool
    from cni.firewall.iptables.rule import Rule

_OUR_CHAINS = "CNI-"


def list_present(tool: Tool, wanted: Sequence[Rule]) -> dict[str, list[Rule]]:
    """Return rules of the chains of `wanted` that exist, at least those that are or may be wanted ones.

    Built-in chains always exist. Raise CniError 101.
    """
    chains = list(dict.fromkeys(each.chain for each in wanted))
    seen = _read(tool, chains, wanted) if tool.is_nf_tables() else {}
    others = [each for each in chains if each not in seen]
    existing = variants.list_existing(tool, others)
    listed = tool.list_chains([each for each in others if each in existing or not _is_ours(each)])
    return {each: rules for each, rules in seen.items() if rules is not None} | listed


def may_be(rule: Rule, listed: Sequence[Rule]) -> bool:
    """Return whether a rule may be one of others: iptables may list its options in another form."""
    return any(each.leads_to == rule.leads_to for each in listed)


def _is_ours(chain: str) -> bool:
    return chain.startswith(_OUR_CHAINS)


def _read(tool: Tool, chains: Sequence[str], wanted: Sequence[Rule]) -> dict[str, list[Rule] | None]:
    """Return what netlink knows for certain: the rules of chains, None for a chain that does not exist."""
    family = nft.FAMILIES[tool.version]
    known: dict[str, list[Rule] | None] = {}
    try:
        found = nft.find_chains([(family, tool.table, each) for each in chains])
        for chain, is_there in zip(chains, found, strict=True):
            if not is_there:
                known[chain] = None if _is_ours(chain) else []
                continue
            own = {each: _content(each) for each in wanted if each.chain == chain}
            raw = nft.list_rules_with(family, tool.table, chain, own.values())
            rules = [rule for each in raw if (rule := netlink.read_rule(each))]
            if all(rule in rules or not any(part in each.raw for each in raw) for rule, part in own.items()):
                known[chain] = rules
    except CniError:
        return {}
    return known


def _content(rule: Rule) -> bytes:
    """Return bytes that a rule of nf_tables contains in any form; b"", which all do, if none are known."""
    if _is_ours(rule.leads_to):
        return f"{rule.leads_to}\0".encode()
    option, *words = rule.matches[0] if rule.matches else ("",)
    network = ip_network(words[0]) if option in {"-s", "-d"} else None
    whole = network is not None and network.prefixlen == network.max_prefixlen
    return network.network_address.packed if network and whole else b""

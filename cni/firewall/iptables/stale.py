"""Find and remove the iptables rules of attachments that are no longer valid, for GC."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import ErrorList
from cni.firewall.intents import Owner, PortMapping, RulesRemainError
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.transaction import (
    addresses_of_host,
    former_gateways,
    gateway_removal_commands,
    remove_chain,
    retried,
)
from cni.operations.garbage import Stale

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cni.firewall.intents import Kind
    from cni.firewall.iptables.execute import Tool
    from cni.firewall.iptables.rule import Rule
    from cni.request import Attachment


class StaleChain(NamedTuple):
    """A chain for GC: the chains that lead to it, its container, and the ports that it publishes."""

    chain: str
    parents: tuple[str, ...]
    container_id: str
    mappings: tuple[PortMapping, ...]


def find(tool: Tool, network: str, valid: Collection[Attachment], kinds: Sequence[Kind]) -> list[Stale]:
    """Return what `collect` removes."""
    kind = f"{tool.name} chain"
    former = [rule for _, listed in _list_former_gateways(tool) for rule in listed]
    return [
        *(
            Stale(kind, each.chain, network, each.container_id, mappings=each.mappings)
            for each in _find_chains(tool, network, valid, kinds)
        ),
        *(
            Stale(kind, rule.leads_to, reason=f"the host has no {rules.find_gateway(rule)}")
            for rule in former
        ),
    ]


def collect(tool: Tool, network: str, valid: Collection[Attachment], kinds: Sequence[Kind]) -> set[str]:
    """Remove the chains of a network's containers that are not valid. Return the IDs of the containers.

    Every chain is tried. Raise CniError for those that could not be removed. Chains of gateways that the host
    does not have any more are removed as well, of every network and variant.
    """
    found = _find_chains(tool, network, valid, kinds)
    errors = ErrorList()
    for each in found:
        errors.attempt(remove_chain, tool, each.chain, each.parents)
    errors.raise_any()
    retried(_forget_gateways, tool)
    return {each.container_id for each in found}


def _find_chains(
    tool: Tool, network: str, valid: Collection[Attachment], kinds: Sequence[Kind]
) -> list[StaleChain]:
    """Find the network's chains of these kinds that no valid attachment may have.

    A chain belongs to the network that the comment of a rule in it, or of a rule that leads to it, names.
    """
    renderings = [kind.iptables() for kind in kinds if kind.iptables]
    owners = [Owner(network, each.container_id, each.ifname) for each in valid]
    of_valid = {own.chain for each in renderings for owner in owners for own in each.own(owner)}
    sample = [own.chain for each in renderings for own in each.own(Owner("", "", ""))]
    listed = [rule for having in variants.list_with_table(tool) for rule in having.list_all()]
    containers = stale_chains(listed, network, of_valid, set(map(rules.chain_prefix, sample)))
    return [
        StaleChain(
            chain,
            tuple(dict.fromkeys(rule.chain for rule in listed if rule.leads_to == chain)),
            container_id,
            read_mappings(listed, chain),
        )
        for chain, container_id in containers.items()
    ]


def stale_chains(
    listed: Iterable[Rule], network: str, valid: Collection[str], prefixes: Collection[str]
) -> dict[str, str]:
    """Return the chains with one of `prefixes` that are not `valid`, each with the ID of its container."""
    containers = {}
    for rule in listed:
        owner = rules.find_owner(rule)
        if owner is None or owner[0] != network:
            continue
        for chain in (rule.leads_to, rule.chain):
            is_known = rules.is_containers(chain) and rules.chain_prefix(chain) in prefixes
            if is_known and chain not in valid:
                containers[chain] = owner[1]
    return containers


def read_mappings(listed: Iterable[Rule], chain: str) -> tuple[PortMapping, ...]:
    """Read which host ports a chain publishes."""
    # A port that only some clients reach has a rule for each network of them.
    found = dict.fromkeys(
        each for rule in listed if rule.chain == chain and (each := rules.find_mapping(rule))
    )
    return tuple(
        PortMapping(protocol, port, 0, ip_address(host_ip) if host_ip else None)
        for protocol, port, host_ip in found
    )


def _forget_gateways(tool: Tool) -> None:
    for having, former in _list_former_gateways(tool):
        having.apply("forget gateways", gateway_removal_commands(former))


def _list_former_gateways(tool: Tool) -> list[tuple[Tool, list[Rule]]]:
    """Return the rules for gateways that the host does not have any more, by the variant that has them."""
    if tool.table != rules.NAT:
        return []
    try:
        found = variants.list_having(tool, rules.GATEWAYS)
    except RulesRemainError:
        # They do no harm, and no program can remove them.
        return []
    of_host = addresses_of_host(tool.version) if found else ()
    listed = ((having, having.list_chains([rules.GATEWAYS])) for having in found)
    return [(having, former_gateways(seen, of_host)) for having, seen in listed]

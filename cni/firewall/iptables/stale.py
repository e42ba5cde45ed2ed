"""What GC removes of iptables: looked for here without changing anything."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.errors import ErrorList
from cni.firewall.intents import PortMapping
from cni.firewall.iptables import remove as removal
from cni.firewall.iptables import variants
from cni.firewall.iptables.execute import RefusedError
from cni.firewall.iptables.rules import find_gateway, find_target, parse_rule
from cni.operations.garbage import Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.firewall.iptables.execute import Tool

_PUBLISHED = re.compile(
    r"(?:-d (?P<host_ip>[0-9a-f.:]+)/\d+ )?-p (?P<protocol>\w+) .*--dport (?P<port>\d+) .*-j DNAT"
)


def find(tools: Iterable[Tool], network: str, is_valid: Callable[[str], bool]) -> list[Stale]:
    """Find the network's chains for which `is_valid(chain)` is false."""
    found: list[Stale] = []
    errors = ErrorList()
    for tool in tools:
        errors.attempt(lambda tool=tool: found.extend(_find(tool, network, is_valid)))
    errors.raise_any()
    return found


def _find(tool: Tool, network: str, is_valid: Callable[[str], bool]) -> list[Stale]:
    try:
        lines = [line for having in variants.list_with_table(tool) for line in having.list_all()]
        former = [rule for _, found in removal.list_former_gateways(tool) for rule in found]
    except RefusedError as error:
        if error.is_without_table:
            return []
        raise
    stale = removal.stale_chains(lines, network, is_valid)
    return [
        *(
            Stale(f"{tool.name} chain", chain, network, container_id, mappings=read_mappings(lines, chain))
            for chain, container_id in stale.items()
        ),
        *(
            Stale(f"{tool.name} chain", find_target(rule), reason=f"the host has no {find_gateway(rule)}")
            for rule in former
        ),
    ]


def read_mappings(lines: Iterable[str], chain: str) -> tuple[PortMapping, ...]:
    """Read which host ports a chain publishes."""
    rules = [rule for rule in map(parse_rule, lines) if rule and rule.chain == chain]
    found = [match for rule in rules if (match := _PUBLISHED.search(rule.spec))]
    return tuple(
        PortMapping(
            each["protocol"],
            int(each["port"]),
            0,
            ip_address(each["host_ip"]) if each["host_ip"] else None,
        )
        for each in found
    )

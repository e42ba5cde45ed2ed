"""Taking iptables rules away by the names of their chains: no address and no port needs to be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, ErrorList
from cni.firewall.iptables import rules, steps, variants
from cni.firewall.iptables.execute import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from cni.firewall.intents import Owner
    from cni.firewall.iptables.execute import Tool
    from cni.firewall.iptables.rules import Rule, Shared

# How often a transaction is planned anew when others change the rules at the same time.
TRIES = 8

# Where the chains of each kind hang.
_PARENTS = {"CNI-DN-": rules.DNAT, "CNI-SN-": rules.OLD_SNAT}


def retried(attempt: Callable[..., None], *args: object) -> None:
    """Run `attempt(*args)`, which reads rules and then changes them, until nobody else comes between."""
    for left in reversed(range(TRIES)):
        try:
            return attempt(*args)
        except RefusedError as error:
            if not left or not error.is_conflict:
                raise
    return None


def remove_chain(tool: Tool, chain: str) -> None:
    """Remove a container's chain and all rules that lead to it, whichever variant of iptables has them."""
    parent = next((parent for prefix, parent in _PARENTS.items() if chain.startswith(prefix)), "POSTROUTING")

    def attempt(having: Tool) -> None:
        seen = having.list_while_there([chain, parent])
        having.apply(f"remove chain {chain}", steps.remove_chain(seen, chain, [parent]))

    is_in_nftables, others = variants.find_chain(tool, chain)
    if is_in_nftables:
        variants.remove_by_netlink(tool, chain, parent)
    for having in others:
        try:
            retried(attempt, having)
        except CniError as error:
            variants.raise_if_left(error, tool.version, chain)
            raise


def remove_unused(tool: Tool, made: Sequence[Shared]) -> None:
    """Remove shared chains unless somebody has begun to use them; fine if they were not made in the end."""
    try:
        tool.apply("remove shared chains", steps.remove_shared(made))
    except RefusedError as error:
        if not error.is_conflict and tool.list_chain(made[0].chain) is not None:
            raise


def collect(tool: Tool, network: str, is_valid: Callable[[str], bool]) -> set[str]:
    """Remove the network's chains for which `is_valid(chain)` is false; give the container IDs they were of.

    A chain is the network's when the comment of a rule that leads to it, or that is in it, says so. All are
    tried; raises CniError for those that could not be removed.
    """
    stale: dict[str, str] = {}
    for having in variants.list_with_table(tool):
        stale |= stale_chains(having.list_all(), network, is_valid)
    errors = ErrorList()
    for chain in stale:
        errors.attempt(remove_chain, tool, chain)
    errors.raise_any()
    return set(stale.values())


def forget_gateways(tool: Tool) -> None:
    """Remove the chains of gateways that the host does not have any more, whichever variant has them."""

    def attempt() -> None:
        for having, former in list_former_gateways(tool):
            having.apply("forget gateways", steps.forget_gateways(former))

    retried(attempt)


def list_former_gateways(tool: Tool) -> list[tuple[Tool, list[Rule]]]:
    """Return the rules for gateways that the host does not have any more, by the variant that has them."""
    from cni.firewall.rules_remain import LeftError

    try:
        found = variants.list_having(tool, rules.GATEWAYS)
    except LeftError:
        # What no program is left for does no harm.
        return []
    of_host = addresses_of_host(tool.version) if found else ()
    listed = ((having, having.list_chains([rules.GATEWAYS])) for having in found)
    return [(having, steps.former_gateways(seen, of_host)) for having, seen in listed]


def addresses_of_host(version: int) -> frozenset[str]:
    """Return the addresses of all links of the host."""
    from cni.kernel import addr
    from cni.kernel.rtnetlink import Netlink

    with Netlink() as nl:
        return frozenset(str(each.address.ip) for each in addr.list_addrs(nl, version=version))


def stale_chains(lines: Iterable[str], network: str, is_valid: Callable[[str], bool]) -> dict[str, str]:
    """Give the network's chains for which `is_valid(chain)` is false, with the container IDs they are of."""
    stale = {}
    for rule in filter(None, map(rules.parse_rule, lines)):
        owner = rules.find_owner(rule)
        if owner is None or owner[0] != network:
            continue
        for chain in (rules.find_target(rule), rule.chain):
            if rules.is_containers(chain) and not is_valid(chain):
                stale[chain] = owner[1]
    return stale


def owner_chains(owners: Collection[Owner]) -> frozenset[str]:
    """Give the names of all chains that are made for these owners."""
    named = (rules.masquerade_chain, rules.forward_chain, rules.old_snat_chain)
    return frozenset(name(owner) for owner in owners for name in named)

"""Accept the queries of containers where a packet filter drops what the host receives.

Each filter has a place of its own for the rules, as none overrules another one:

- iptables, of any variant and of firewalld: each network has a chain, which goes with the network's last
  container. The rule that leads to these chains comes first in INPUT, and stays.
- firewalld with nftables: rich rules, which `firewalld` adds over D-Bus.
- nftables of others: rules in the chains that drop, which `gates` adds.

`locked` must be held by the functions that change rules. Functions import what only a host with a filter
needs.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.dns import records
from cni.firewall.intents import Kind, Owner
from cni.kernel.filtering import INET, INPUT, filters_input, has_chain, list_hooked
from cni.state import attachments, boot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from cni.dns.names import Record
    from cni.firewall.iptables.rule import Rendering

FILTER, HOOK, SHARED = "filter", "INPUT", "CNI-NAMES"
PREFIX = "CNI-NM-"
LOCK = Path("/run/pycni/dns-rules.lock")
# The part of an owner's name that is the container's elsewhere.
_ALL = "names"
_VERSIONS = (4, 6)
# The filters whose rules are on record, and how errors call the third one.
FIREWALLD, NFTABLES, _IPTABLES = "firewalld", "nftables", "iptables"


class Queries(NamedTuple):
    """Queries from the subnets of a network to its gateways."""

    owner: Owner
    gateways: tuple[str, ...]
    subnets: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """The kind of intent."""
        return QUERIES

    @property
    def versions(self) -> Sequence[int]:
        """The IP versions that iptables has rules for: those in which it filters."""
        wanted = {ip_address(each).version for each in self.gateways}
        return [each for each in sorted(wanted) if is_iptables(each)]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each subnet with each gateway of its IP version."""
        return [
            (subnet, gateway)
            for subnet in self.subnets
            for gateway in self.gateways
            if ip_network(subnet).version == ip_address(gateway).version
        ]


def _rendering() -> Rendering:
    from cni_dnsname.admission_rules import RENDERING

    return RENDERING


QUERIES = Kind("names", "queries for names", "accept queries of", _rendering)


def owner_of(network: str) -> Owner:
    """Return the owner of a network's rules."""
    return Owner(network, _ALL, "")


def is_iptables(version: int) -> bool:
    """Return whether iptables filters what the host receives, and its program can change that."""
    if not filters_input(version):
        return False
    from cni.firewall.iptables.execute import Tool

    return Tool(version, FILTER).find() is not None


def locked() -> AbstractContextManager[None]:
    """Keep other calls from changing records of names and rules. Raise CniError 11 or 106."""
    return boot.locked_state(LOCK)


def plan(record: Record) -> Queries:
    """Return what a network needs accepted."""
    settings = record.settings
    return Queries(owner_of(record.key.network), settings.gateways, settings.subnets)


def admit(record: Record, bus: str, *, everywhere: bool) -> None:
    """Accept the queries of a network, before its names are on record. `withdraw` is the inverse.

    `bus` is the address of the system bus, "" for the usual one. Only with `everywhere`, and for the first
    names of the network, the chains of the host are searched for those that drop. Raise CniError 101 or 11.
    """
    queries = plan(record)
    if queries.versions:
        from cni.firewall.iptables.backend import Iptables
        from cni.undo import Undo

        Iptables().apply(queries, Undo())
    if is_firewalld():
        from cni_dnsname import firewalld

        firewalld.admit(queries, bus)
    network = record.key.network
    is_search = everywhere or not records.has_network(network)
    if load_values(network, NFTABLES) is not None or (is_search and any(list_hooked(INPUT))):
        from cni_dnsname import gates

        gates.admit(queries, everywhere=is_search)


def is_firewalld() -> bool:
    """Return whether firewalld filters what the host receives, by a table of its own."""
    return has_chain(INET, "firewalld", "filter_INPUT")


def key_of(network: str, name: str) -> attachments.Key:
    """Return the key of the record of a network's rules in a filter."""
    return attachments.Key("dnsname", network, name, "")


def load_values(network: str, name: str) -> Mapping[str, Any] | None:
    """Return the record of a network's rules in a filter, None without one."""
    saved = attachments.load(key_of(network, name))
    return saved.values if saved else None


def differences(record: Record, bus: str) -> list[str]:
    """Return the missing rules."""
    from cni_dnsname import gates

    queries = plan(record)
    found = []
    if queries.versions:
        from cni.firewall.iptables.backend import Iptables

        found += Iptables().differences(queries)
    if is_firewalld():
        from cni_dnsname import firewalld

        found += firewalld.differences(queries, bus)
    return [*found, *gates.differences(queries)]


def list_filters() -> list[str]:
    """List the chains that may drop what the host receives. This reads all chains of the host."""
    listed = [each for each in list_hooked(INPUT) if each.rules or each.has_drop_policy]
    names = [f"chain {each.chain} of table {each.table}" for each in listed]
    is_listed = any((each.table, each.chain) == (FILTER, HOOK) for each in listed)
    return names if is_listed or not any(map(filters_input, _VERSIONS)) else [*names, f"{HOOK} of iptables"]


def shown_rules(record: Record, gateway: str) -> list[str]:
    """Return the rules of nftables that accept queries at a gateway."""
    return [
        f"{family} saddr {subnet} {family} daddr {each} meta l4proto {{ tcp, udp }} th dport 53 accept"
        for subnet, each in plan(record).pairs
        if each == gateway
        for family in ("ip6" if ":" in gateway else "ip",)
    ]


def withdraw(network: str) -> None:
    """Remove the rules of a network that has no names any more. Raise CniError 101 or 11."""
    if records.has_network(network):
        return
    from cni.errors import ErrorList

    errors = ErrorList()
    if any(map(filters_input, _VERSIONS)):
        from cni.firewall.iptables.backend import Iptables

        errors.attempt(Iptables().remove, owner_of(network), QUERIES)
    if load_values(network, FIREWALLD) is not None:
        from cni_dnsname import firewalld

        errors.attempt(firewalld.withdraw, network)
    if load_values(network, NFTABLES) is not None:
        from cni_dnsname import gates

        errors.attempt(gates.withdraw, network)
    errors.raise_any()


def list_left(network: str) -> list[str]:
    """List the filters that have rules of a network without names: a killed call has left them."""
    if records.has_network(network):
        return []
    found = [each for each in (FIREWALLD, NFTABLES) if load_values(network, each) is not None]
    if any(map(filters_input, _VERSIONS)):
        from cni.firewall.iptables.backend import Iptables

        found += [_IPTABLES] if Iptables().installed([owner_of(network)], QUERIES, ()) else []
    return found

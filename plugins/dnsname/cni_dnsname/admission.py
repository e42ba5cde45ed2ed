"""Accept the queries of containers where iptables filters the packets for the host.

Each network has a chain with its rules, which goes with the network's last container. The rule that leads to
them comes first in INPUT, and stays. Functions import what only a host with such rules needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.dns import records
from cni.firewall.intents import Kind, Owner
from cni.kernel.filtering import filters_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.dns.names import Record
    from cni.firewall.iptables.rule import Rendering

FILTER, HOOK, SHARED = "filter", "INPUT", "CNI-NAMES"
PREFIX = "CNI-NM-"
# The part of an owner's name that is the container's elsewhere.
_ALL = "names"


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
        """The IP versions that the rules are for: those in which the host filters."""
        wanted = {6 if ":" in each else 4 for each in self.gateways}
        return [each for each in sorted(wanted) if filters_input(each)]


def _rendering() -> Rendering:
    from cni_dnsname.admission_rules import RENDERING

    return RENDERING


QUERIES = Kind("names", "queries for names", "accept queries of", _rendering)


def owner_of(network: str) -> Owner:
    """Return the owner of a network's rules."""
    return Owner(network, _ALL, "")


def plan(record: Record) -> Queries | None:
    """Return the rules that a network needs; None if nothing filters what the host receives."""
    settings = record.settings
    intent = Queries(owner_of(record.key.network), settings.gateways, settings.subnets)
    return intent if intent.versions else None


def admit(record: Record) -> None:
    """Accept the queries of a network. `withdraw` is the inverse. Raise CniError 101 or 11."""
    if intent := plan(record):
        from cni.firewall.iptables.backend import Iptables
        from cni.undo import Undo

        Iptables().apply(intent, Undo())


def differences(record: Record) -> list[str]:
    """Return the missing rules."""
    intent = plan(record)
    if intent is None:
        return []
    from cni.firewall.iptables.backend import Iptables

    return Iptables().differences(intent)


def withdraw(network: str) -> None:
    """Remove the rules of a network that has no names any more."""
    if records.has_network(network) or not any(map(filters_input, (4, 6))):
        return
    from cni.firewall.iptables.backend import Iptables

    Iptables().remove(owner_of(network), QUERIES)

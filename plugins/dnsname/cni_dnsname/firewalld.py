"""Accept queries with firewalld: rich rules in the zones that a network's packets arrive in, over D-Bus.

They are a part of the configuration at run time: a reload of firewalld removes them, the next ADD and repair
add them again. A record names those that were added, as a rich rule names no owner. An administrator's own
rule, though equal, is not on record and stays.
"""

from __future__ import annotations

from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.kernel import addr, link
from cni.kernel.dbus import Bus, BusError, Service, may_exist
from cni.kernel.rtnetlink import Netlink
from cni.state import attachments
from cni_dnsname.admission import FIREWALLD, key_of, load_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_dnsname.admission import Queries

_BUS_NAME, _OBJECT = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_MAIN = Service(_BUS_NAME, _OBJECT, _BUS_NAME)
_ZONES = Service(_BUS_NAME, _OBJECT, f"{_BUS_NAME}.zone")
_IS_SET = ("ALREADY_ENABLED",)
_IS_ABSENT = ("NOT_ENABLED", "INVALID_ZONE")
_NO_TIMEOUT = 0
# The record has a zone and a rule in each entry.
_ENTRY = 2

# A zone, and a rule in it.
Rule = tuple[str, str]


def admit(queries: Queries, bus: str) -> None:
    """Add the rules that are missing. Raise CniError 101."""
    with _connected(bus) as connection:
        missing = _list_missing(connection, queries)
        if not missing:
            return
        network = queries.owner.network
        listed = dict.fromkeys([*load(network), *missing])
        attachments.save(key_of(network, FIREWALLD), {"bus": bus, "rules": list(map(list, listed))})
        for zone, rule in missing:
            _change(connection, _IS_SET, "addRichRule", zone, rule, _NO_TIMEOUT)


def differences(queries: Queries, bus: str) -> list[str]:
    """Return the rules that are missing. Raise CniError 101."""
    with _connected(bus) as connection:
        return [
            f"firewalld zone {zone} has no rich rule '{rule}'"
            for zone, rule in _list_missing(connection, queries)
        ]


def withdraw(network: str) -> None:
    """Remove the rules on record. Without firewalld there are none. Raise CniError 101."""
    bus = (load_values(network, FIREWALLD) or {}).get("bus")
    errors = ErrorList()
    if isinstance(bus, str) and may_exist(bus):
        try:
            with _connected(bus) as connection:
                for zone, rule in load(network):
                    errors.attempt(_change, connection, _IS_ABSENT, "removeRichRule", zone, rule)
        except _NotRunningError:
            pass
    errors.raise_any()
    attachments.drop(key_of(network, FIREWALLD))


def load(network: str) -> list[Rule]:
    """Return the rules on record."""
    listed = (load_values(network, FIREWALLD) or {}).get("rules")
    return [
        (each[0], each[1])
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, list) and len(each) == _ENTRY and all(isinstance(text, str) for text in each)
    ]


class _NotRunningError(CniError):
    """firewalld does not run."""


@contextmanager
def _connected(bus: str) -> Iterator[Bus]:
    """Yield a connection to the bus on which firewalld is. Raise CniError 101."""
    remedy = (
        "Let the caller reach firewalld on the system bus, or accept port 53 of the gateways in firewalld."
    )
    try:
        with Bus(bus) as connection:
            if not connection.has_owner(_BUS_NAME):
                raise _NotRunningError(
                    Code.FIREWALL,
                    "could not accept queries: firewalld filters them, and does not run",
                    "Start firewalld, or delete its table: nft delete table inet firewalld",
                )
            yield connection
    except BusError as error:
        raise CniError(
            Code.FIREWALL, f"could not accept queries with firewalld: {error.msg}", remedy
        ) from error


def _change(connection: Bus, ignored: tuple[str, ...], method: str, *arguments: str | int) -> None:
    try:
        connection.call(_ZONES, method, *arguments)
    except BusError as error:
        if not error.reason.startswith(ignored):
            raise CniError(
                Code.FIREWALL,
                f"could not change zone {arguments[0]} of firewalld: {error.msg}",
                "Look at the log of firewalld.",
            ) from error


def _list_missing(connection: Bus, queries: Queries) -> list[Rule]:
    return [
        (zone, rule)
        for subnet, gateway in queries.pairs
        for zone in _zones(connection, subnet, gateway)
        for rule in _rules(subnet, gateway)
        if connection.call(_ZONES, "queryRichRule", zone, rule) != (True,)
    ]


def _rules(subnet: str, gateway: str) -> list[str]:
    return [
        f'rule family="ipv{ip_address(gateway).version}" source address="{subnet}" '
        f'destination address="{gateway}" port port="53" protocol="{protocol}" accept'
        for protocol in ("udp", "tcp")
    ]


def _zones(connection: Bus, subnet: str, gateway: str) -> list[str]:
    """Return the zones that packets of a subnet arrive in.

    firewalld looks for the zone of the source first, then of the link, and takes the default zone else.
    Sources that are MAC addresses or sets are not read.
    """
    (active,) = connection.call(_ZONES, "getActiveZones")
    network = ip_network(subnet)
    found = []
    is_whole = False
    for zone, parts in active.items():
        sources = [ip_network(each) for each in parts.get("sources", ()) if _is_network(each)]
        same = [each for each in sources if each.version == network.version and each.overlaps(network)]
        found += [zone] if same else []
        is_whole |= any(each.prefixlen <= network.prefixlen for each in same)
    if is_whole:
        return found
    of_link = [zone for zone, parts in active.items() if _has_address(parts.get("interfaces", ()), gateway)]
    if not of_link:
        of_link = [str(each) for each in connection.call(_MAIN, "getDefaultZone")]
    return list(dict.fromkeys([*found, *of_link]))


def _is_network(source: str) -> bool:
    try:
        ip_network(source)
    except ValueError:
        return False
    return True


def _has_address(links: Iterable[str], gateway: str) -> bool:
    wanted = ip_address(gateway)
    with Netlink() as nl:
        indices = [each.index for name in links if (each := link.find(nl, name))]
        return any(wanted == each.address.ip for index in indices for each in addr.list_addrs(nl, index))

"""Find what GC removes of nftables. Nothing here changes anything."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.firewall import nft, owners
from cni.firewall.intents import PortMapping
from cni.firewall.nftables import base, chains, elements, foreign, records
from cni.firewall.nftables.elements import shown_clients, shown_forward
from cni.firewall.nftables.layout import (
    CLIENTS,
    CONDITIONAL,
    FAMILIES,
    HOST_IP_PORTS,
    PORTS,
    RECORDS,
    RESTRICTED,
    SECOND,
    TABLE,
    hairpin_set,
    is_shared_set,
    leaving_set,
    subnet_sets,
)
from cni.firewall.nftables.plan import PROTOCOLS
from cni.operations.garbage import Stale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.nftables.elements import Element

_NAMES = {number: name for name, number in PROTOCOLS.items()}
_UNUSED = "nothing is left in it"


def find(network: str, valid: frozenset[str], parents: Sequence[nft.Place]) -> list[Stale]:
    """Find what belongs to a network's attachments whose tags are not in `valid`, and what is unused then.

    `parents` are the chains that lead to owners' chains.
    """
    found = list_elements(network, valid)
    listed = chains.list_invalid(network, valid, parents)
    comments = [*(comment for _, comment in found), *(each.comment for each in listed)]
    known = {owners.tag_of(comment): comment for comment in comments}
    return [
        *(_of("nftables chain", _show_chain(each.chain), each.comment) for each in listed),
        *(_of("nftables rule", comment, comment) for comment in foreign.list_invalid(network, valid)),
        *(_of_element(*each) for each in found),
        *(
            _of("file", str(path), known.get(path.name.partition(".")[0], ""))
            for path in records.list_invalid(network, valid)
        ),
        *_unused([element for element, _ in found], network, valid),
    ]


def _show_chain(chain: chains.OwnChain) -> str:
    return f"{nft.FAMILY_NAMES[chain.family]} {chain.table} {chain.name}"


def list_elements(network: str, valid: frozenset[str]) -> list[tuple[Element, str]]:
    """List the elements of a network's owners whose tags are not in `valid`, with their comments."""
    prefix = owners.network_tag(network)
    return [
        (element, comment)
        for family in FAMILIES
        for name in elements.list_sets(family)
        for element, comment in elements.search(family, name, prefix)
        if owners.tag_of(comment) not in valid
    ]


def read_mappings(element: Element) -> tuple[PortMapping, ...]:
    """Return the host port that an element publishes, if any."""
    return _shown(element)[1]


def _of(kind: str, name: str, comment: str) -> Stale:
    owner = owners.parse(comment)
    return Stale(kind, name, *(owner or ()))


def _of_element(element: Element, comment: str) -> Stale:
    name, mappings = _shown(element)
    where = f"{nft.FAMILY_NAMES[element.family]} {TABLE} {element.set_name} {name}"
    return _of("nftables element", where, comment)._replace(mappings=mappings)


def _shown(element: Element) -> tuple[str, tuple[PortMapping, ...]]:
    """Return a key as nft shows it, and the host port that it publishes, if any."""
    if element.set_name in {PORTS, HOST_IP_PORTS}:
        forward = shown_forward(element)
        host_ip = ip_address(forward.host_ip) if forward.host_ip else None
        protocol = _NAMES.get(forward.protocol, str(forward.protocol))
        mapping = PortMapping(protocol, forward.host_port, forward.container_port, host_ip)
        shown = f"{protocol} . {forward.host_port}"
        return (f"{host_ip} . {shown}" if host_ip else shown), (mapping,)
    size = nft.ADDRESS_BYTES[element.family]
    key, last = (element.key[:-size], [shown_clients(element)]) if element.end else (element.key, [])
    has_address = element.set_name not in {RESTRICTED, CLIENTS}
    first = [str(ip_address(key[:size]))] if has_address else []
    port = key[size:] if has_address else key
    ports = [str(_NAMES.get(port[0], port[0])), str(int.from_bytes(port[4:6], "big"))] if port else []
    return " . ".join([*first, *ports, *last]), ()


def _unused(gone: list[Element], network: str, valid: frozenset[str]) -> Iterator[Stale]:
    """Find sets and tables that are empty without these elements."""
    keys = {each[:3] for each in gone}
    for family in FAMILIES:
        if not nft.has_table(family, TABLE):
            continue
        where = f"{nft.FAMILY_NAMES[family]} {TABLE}"
        sets = [name for name in elements.list_sets(family) if name != RECORDS and not is_shared_set(name)]
        empty = {
            name for name in sets if all(each[:3] in keys for each, _ in elements.search(family, name, ""))
        }
        if set(sets) == empty and not _has_rules_left(family, network, valid):
            yield Stale("nftables table", where, reason=_UNUSED)
            continue
        for shared in base.list_subnets(family):
            if {hairpin_set(shared.subnet), leaving_set(shared.subnet)} <= empty:
                names = subnet_sets(shared.subnet)
                yield from (Stale("nftables set", f"{where} {name}", reason=_UNUSED) for name in names)


def _has_rules_left(family: int, network: str, valid: frozenset[str]) -> bool:
    """Return whether a rule of any owner remains."""
    prefix = owners.network_tag(network)
    rules = [rule for chain in (CONDITIONAL, SECOND) for rule in nft.list_rules(family, TABLE, chain)]
    return any(not rule.comment.startswith(prefix) or owners.tag_of(rule.comment) in valid for rule in rules)

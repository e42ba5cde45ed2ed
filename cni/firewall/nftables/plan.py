"""Render intents for nftables: the elements, chains and rules that ADD makes and CHECK compares. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.nftables import chains, conditions, foreign
from cni.firewall.nftables.elements import Element
from cni.firewall.nftables.layout import (
    CONDITIONAL,
    HOST_IP_PORTS,
    MASQUERADE_ALL,
    NOT_MASQUERADED,
    PORTS,
    RESTRICTIONS,
    gateway_set,
    hairpin_set,
    leaving_set,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cni.firewall.intents import Gateway, Masquerade, Owner, PortForward, PortMapping
    from cni.firewall.nftables.chains import OwnChain
    from cni.result import IpAddress, IpInterface, IpNetwork

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class Plan(NamedTuple):
    """The elements and chains that an intent needs.

    Elements of our own tables' maps and sets: `elements`, and `gateways`, which have no owner; for both the
    tables of these `families` must have `subnets`. Chains of the owner's: `script` makes them in one
    transaction, and `rules` are the comments of rules that each must have. `conditional` are the elements
    that are such rules.
    """

    families: Sequence[int] = ()
    subnets: Sequence[IpNetwork] = ()
    elements: Sequence[Element] = ()
    gateways: Sequence[Element] = ()
    conditional: Sequence[Element] = ()
    script: str = ""
    rules: Sequence[tuple[OwnChain, str]] = ()


def _nothing(*_: Any) -> None:
    pass


def _no_chains(_: Owner) -> Sequence[OwnChain]:
    return ()


def _no_differences(_: Any) -> list[str]:
    return []


def _has_none(*_: Any) -> bool:
    return False


class Foreign(NamedTuple):
    """Rules of a kind by the Go plugins' nftables backend: how to remove them and to detect them."""

    remove: Callable[[Owner], object] = _nothing
    covers: Callable[[Any], bool] = _has_none
    has_rules: Callable[[Owner], bool] = _has_none


class Rendering(NamedTuple):
    """How nftables renders one kind of intent.

    `own` lists the chains that an owner may have, `has_set` tells whether elements of a set are of this kind.
    `validate` raises CniError 7 for an intent that must not be applied. `compare` finds differences that
    comments of rules do not show.
    """

    plan: Callable[[Any], Plan]
    own: Callable[[Owner], Sequence[OwnChain]] = _no_chains
    has_set: Callable[[str], bool] | None = None
    validate: Callable[[Any], object] = _nothing
    compare: Callable[[Any], list[str]] = _no_differences
    foreign: Foreign = Foreign()


def plan_forward(intent: PortForward) -> Plan:
    """Plan published ports: elements, or rules for those that have conditions."""
    planned: dict[tuple[int, str, bytes], Element] = {}
    for target in intent.targets:
        for mapping in intent.mappings:
            if mapping.host_ip is None or mapping.host_ip.version == target.version:
                port, *others = _elements(intent, mapping, target)
                # Of mappings of one port the first one counts, with its clients.
                if port[:3] not in planned:
                    planned |= {each[:3]: each for each in (port, *others) if each[:3] not in planned}
    words = {nft.IPV4: intent.conditions_v4, nft.IPV6: intent.conditions_v6}
    conditional = [each for each in planned.values() if each.value and words[each.family]]
    restrictions = [each for each in planned.values() if any(map(each.restricts, conditional))]
    ruled = [rule for each in conditional for rule in (each, *chains.restriction(each, restrictions)[:1])]
    return Plan(
        list(dict.fromkeys(map(family_of, intent.targets))),
        _subnets(intent.targets, intent.gateways),
        [each for each in planned.values() if each not in conditional and each not in restrictions],
        _plan_gateways(intent.gateways),
        conditional,
        chains.script(CONDITIONAL, intent.owner, conditional, words, restrictions),
        [(chains.of_owner(CONDITIONAL, intent.owner, each.family), each.purpose) for each in ruled],
    )


def _check_conditions(intent: PortForward) -> None:
    conditions.check(intent.conditions_v4, "conditionsV4")
    conditions.check(intent.conditions_v6, "conditionsV6")


def plan_masquerade(intent: Masquerade) -> Plan:
    """Plan the elements that masquerade a container's addresses."""
    elements = [
        Element(
            family_of(address),
            leaving_set(str(address.network)),
            address.ip.packed,
            purpose=f"masquerading of {address.ip}",
        )
        for address in dict.fromkeys(intent.addresses)
    ]
    elements += [
        Element(
            family_of(address),
            NOT_MASQUERADED,
            address.packed + network.network_address.packed,
            purpose=f"exception {network} from masquerading of {address}",
            end=address.packed + network.broadcast_address.packed,
        )
        for address in dict.fromkeys(each.ip for each in intent.addresses)
        for network in intent.excepted
        if network.version == address.version
    ]
    return Plan(
        list(dict.fromkeys(map(family_of, intent.addresses))),
        _subnets(intent.addresses, intent.gateways),
        elements,
        _plan_gateways(intent.gateways) if elements else (),
    )


def _subnets(targets: Sequence[IpInterface], gateways: Sequence[Gateway]) -> list[IpNetwork]:
    return list(dict.fromkeys(each.network for each in (*targets, *gateways)))


def _plan_gateways(gateways: Sequence[Gateway]) -> list[Element]:
    """Return the elements that keep traffic of a network to its gateways from published ports."""
    networks = dict.fromkeys(each.network for each in gateways)
    return [
        Element(family_of(each.ip), gateway_set(str(network)), each.ip.packed, purpose=f"gateway {each.ip}")
        for network in networks
        for each in gateways
        if each.version == network.version
    ]


def family_of(address: IpAddress | IpInterface) -> int:
    """Return the nf_tables family of an address."""
    return nft.IPV4 if isinstance(address, IPv4Address) else nft.IPV6


def protocol_number(mapping: PortMapping) -> int:
    """Return the number of a mapping's protocol. Raise CniError 7 if the protocol has no ports to forward."""
    try:
        return PROTOCOLS[mapping.protocol.lower()]
    except KeyError:
        allowed = ", ".join(PROTOCOLS)
        raise CniError(
            Code.INVALID_CONFIG,
            f'unknown protocol "{mapping.protocol}" of host port {mapping.host_port}',
            allowed,
        ) from None


def _elements(intent: PortForward, mapping: PortMapping, target: IpInterface) -> Iterator[Element]:
    """Yield the elements of a port: first that of a map."""
    family, protocol = family_of(target), protocol_number(mapping)
    what = f"host port {mapping.host_port}/{mapping.protocol.lower()}"
    key = _protocol(protocol) + _port(mapping.host_port)
    value = target.ip.packed + _port(mapping.container_port)
    # 0.0.0.0 and :: are all addresses of a family.
    if mapping.host_ip is None or mapping.host_ip.is_unspecified:
        port = Element(family, PORTS, key, value, what)
    else:
        named = f"{what} of {mapping.host_ip}"
        port = Element(family, HOST_IP_PORTS, mapping.host_ip.packed + key, value, named)
    yield port
    if mapping.clients is not None:
        yield from _restrictions(port, mapping.clients_of(target.version))
    if intent.masq_all or intent.snat:
        name = MASQUERADE_ALL if intent.masq_all else hairpin_set(str(target.network))
        key = target.ip.packed + _protocol(protocol) + _port(mapping.container_port)
        yield Element(family, name, key, purpose=f"masquerading for {what}")


def _restrictions(port: Element, clients: Sequence[IpNetwork] | None) -> Iterator[Element]:
    """Yield the elements that let only these clients to a port, all clients for None."""
    if clients is None:
        return
    restricted, allowed = RESTRICTIONS[port.set_name]
    yield Element(port.family, restricted, port.key, purpose=f"the restriction of {port.purpose}")
    for each in clients:
        ends = (port.key + each.network_address.packed, port.key + each.broadcast_address.packed)
        purpose = f"client {each} of {port.purpose}"
        yield Element(port.family, allowed, ends[0], purpose=purpose, end=ends[1])


# Each part of a concatenation takes a multiple of 4 bytes.
def _protocol(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0"


def _is_for_masquerade(name: str) -> bool:
    return name.startswith("leaving-") or name == NOT_MASQUERADED


FORWARD = Rendering(
    plan_forward,
    chains.all_of_owner,
    lambda name: not _is_for_masquerade(name),
    _check_conditions,
    foreign=Foreign(foreign.remove_forward),
)
MASQUERADE = Rendering(
    plan_masquerade,
    has_set=_is_for_masquerade,
    foreign=Foreign(foreign.remove_masquerade, foreign.has_masquerade, foreign.has_rules_of),
)

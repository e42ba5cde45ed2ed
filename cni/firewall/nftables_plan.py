"""Which elements an intent needs: pure, the one description that ADD makes and CHECK compares with."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.nftables_elements import Element
from cni.firewall.nftables_layout import HOST_IP_PORTS, MASQUERADE_ALL, PORTS, hairpin_set, leaving_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import Masquerade, PortForward, PortMapping
    from cni.result import IpAddress, IpInterface

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def plan_forward(intent: PortForward) -> list[Element]:
    """Give the elements that publish ports; those under conditions are rules instead, see `conditional`."""
    planned: dict[tuple[int, str, bytes], Element] = {}
    for target in intent.targets:
        for mapping in mappings_of(intent, target):
            for element in _elements(intent, mapping, target):
                planned.setdefault(element[:3], element)
    return list(planned.values())


def mappings_of(intent: PortForward, target: IpInterface) -> list[PortMapping]:
    """Give the mappings that concern a target: those of its family and of no certain one."""
    return [
        each for each in intent.mappings if each.host_ip is None or each.host_ip.version == target.version
    ]


def conditions_of(intent: PortForward, target: IpInterface) -> tuple[str, ...]:
    """Give the conditions for the family of a target."""
    return intent.conditions_v4 if isinstance(target, IPv4Interface) else intent.conditions_v6


def plan_masquerade(intent: Masquerade) -> list[Element]:
    """Give the elements that masquerade a container's addresses."""
    return [
        Element(
            family_of(address),
            leaving_set(str(address.network)),
            address.ip.packed,
            what=f"masquerading of {address.ip}",
        )
        for address in dict.fromkeys(intent.addresses)
    ]


def family_of(address: IpAddress | IpInterface) -> int:
    """Give the nf_tables family of an address."""
    return nft.IPV4 if isinstance(address, IPv4Address) else nft.IPV6


def protocol_number(mapping: PortMapping) -> int:
    """Give the number of a mapping's protocol; CniError 7 for one that has no ports to forward."""
    try:
        return PROTOCOLS[mapping.protocol.lower()]
    except KeyError:
        allowed = ", ".join(PROTOCOLS)
        raise CniError(
            Code.INVALID_CONFIG,
            f'unknown protocol "{mapping.protocol}" of host port {mapping.host_port}',
            allowed,
        ) from None


def has_host_ip(mapping: PortMapping) -> bool:
    """Tell whether a mapping is for one local address; 0.0.0.0 and :: mean all of a family."""
    return mapping.host_ip is not None and not mapping.host_ip.is_unspecified


def _elements(intent: PortForward, mapping: PortMapping, target: IpInterface) -> Iterator[Element]:
    family, protocol = family_of(target), protocol_number(mapping)
    what = f"host port {mapping.host_port}/{mapping.protocol.lower()}"
    if not conditions_of(intent, target):
        value = target.ip.packed + _port(mapping.container_port)
        key = _protocol(protocol) + _port(mapping.host_port)
        if has_host_ip(mapping) and mapping.host_ip is not None:
            key = mapping.host_ip.packed + key
            yield Element(family, HOST_IP_PORTS, key, value, f"{what} of {mapping.host_ip}")
        else:
            yield Element(family, PORTS, key, value, what)
    if intent.masq_all or intent.snat:
        name = MASQUERADE_ALL if intent.masq_all else hairpin_set(str(target.network))
        key = target.ip.packed + _protocol(protocol) + _port(mapping.container_port)
        yield Element(family, name, key, what=f"masquerading for {what}")


# Each part of a concatenation takes a multiple of 4 bytes.
def _protocol(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0"

"""Which elements an intent needs: pure, the one description that ADD makes and CHECK compares with."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.nftables.elements import Element
from cni.firewall.nftables.layout import (
    HOST_IP_PORTS,
    MASQUERADE_ALL,
    PORTS,
    gateway_set,
    hairpin_set,
    leaving_set,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.intents import Gateway, Masquerade, PortForward, PortMapping
    from cni.result import IpAddress, IpInterface

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class Forward(NamedTuple):
    """What an element of the port maps says; addresses packed, `host_ip` b"" for all."""

    host_ip: bytes
    protocol: int
    host_port: int
    address: bytes
    container_port: int


def plan_forward(intent: PortForward) -> list[Element]:
    """Give the elements that publish ports, those too that conditions make rules of."""
    planned: dict[tuple[int, str, bytes], Element] = {}
    for target in intent.targets:
        for mapping in intent.mappings:
            if mapping.host_ip is None or mapping.host_ip.version == target.version:
                for element in _elements(intent, mapping, target):
                    planned.setdefault(element[:3], element)
    return list(planned.values())


def conditions_of(intent: PortForward) -> dict[int, tuple[str, ...]]:
    """Give the conditions by family, families without any left out."""
    found = {nft.IPV4: intent.conditions_v4, nft.IPV6: intent.conditions_v6}
    return {family: conditions for family, conditions in found.items() if conditions}


def shown_forward(element: Element) -> Forward:
    """Decode an element of the port maps."""
    host_ip, key = element.key[:-8], element.key[-8:]
    address, port = element.value[:-4], element.value[-4:]
    return Forward(host_ip, key[0], int.from_bytes(key[4:6], "big"), address, int.from_bytes(port[:2], "big"))


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


def plan_gateways(gateways: Sequence[Gateway]) -> list[Element]:
    """Return the elements that keep what a network sends to its gateways from published ports."""
    networks = dict.fromkeys(each.network for each in gateways)
    return [
        Element(family_of(each.ip), gateway_set(str(network)), each.ip.packed, what=f"gateway {each.ip}")
        for network in networks
        for each in gateways
        if each.version == network.version
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


def _elements(intent: PortForward, mapping: PortMapping, target: IpInterface) -> Iterator[Element]:
    family, protocol = family_of(target), protocol_number(mapping)
    what = f"host port {mapping.host_port}/{mapping.protocol.lower()}"
    key = _protocol(protocol) + _port(mapping.host_port)
    value = target.ip.packed + _port(mapping.container_port)
    # 0.0.0.0 and :: mean all addresses of a family.
    if mapping.host_ip is None or mapping.host_ip.is_unspecified:
        yield Element(family, PORTS, key, value, what)
    else:
        yield Element(
            family, HOST_IP_PORTS, mapping.host_ip.packed + key, value, f"{what} of {mapping.host_ip}"
        )
    if intent.masq_all or intent.snat:
        name = MASQUERADE_ALL if intent.masq_all else hairpin_set(str(target.network))
        key = target.ip.packed + _protocol(protocol) + _port(mapping.container_port)
        yield Element(family, name, key, what=f"masquerading for {what}")


# Each part of a concatenation takes a multiple of 4 bytes.
def _protocol(number: int) -> bytes:
    return bytes([number, 0, 0, 0])


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big") + b"\0\0"

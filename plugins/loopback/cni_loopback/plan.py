"""The wanted state of lo. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.result import Interface, Ip, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.result import IpInterface

LINK = "lo"
_MAC = "00:00:00:00:00:00"


def check_addresses(addresses: Sequence[IpInterface]) -> None:
    """Raise CniError 104 if lo has an address that is not a loopback address."""
    for address in addresses:
        if not address.ip.is_loopback:
            raise CniError(
                Code.MISMATCH,
                f'loopback interface found with non-loopback address "{address}"',
                f"take it off with: ip addr del {address} dev {LINK}",
            )


def find_wanted(result: Result | None) -> list[IpInterface]:
    """Return the loopback addresses of a result."""
    return [ip.address for ip in result.ips if ip.address.ip.is_loopback] if result else []


def plan_result(netns: str, addresses: Sequence[IpInterface]) -> Result:
    """Return the result: lo with its first address of each family, IPv4 before IPv6."""
    first = [next((each for each in addresses if each.version == version), None) for version in (4, 6)]
    return Result(
        interfaces=(Interface(LINK, _MAC, netns),),
        ips=tuple(Ip(address, interface=0) for address in first if address),
    )

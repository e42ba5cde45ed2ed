"""The address pools of a network: how many addresses are used and free, and which attachment holds which.

A network has pools if its "ipam" object has ranges: then its leases are files as `cni.ipam.leases` reads
them. Nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.addresses import parse_cidr, parse_ip
from cni.errors import CniError, Code
from cni.ipam.leases import Leases, parse_last
from cni.runtime.network import fold, ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.ipam.leases import Lease
    from cni.result import IpAddress
    from cni.runtime.network import Network

_DEFAULT_FOLDER = "/var/lib/cni/networks"


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses from `start` to `end`, both included; the gateway is never assigned."""

    start: IpAddress
    end: IpAddress
    gateway: IpAddress

    def __contains__(self, address: IpAddress) -> bool:
        return address.version == self.start.version and int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    @property
    def size(self) -> int:
        """How many addresses it can assign."""
        return int(self.end) - int(self.start) + 1 - (self.gateway in self)


@dataclass(frozen=True, slots=True)
class Pool:
    """A range set: `used` and `free` count addresses, `last` is the one assigned last, if known."""

    spans: tuple[Span, ...]
    used: int
    free: int
    last: IpAddress | None


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of a network, the folder of their leases, and the leases by address.

    A lease in no pool comes from ranges of the runtime or from an earlier configuration.
    """

    folder: Path
    pools: tuple[Pool, ...]
    leases: tuple[Lease, ...]


def take(network: Network) -> Pools:
    """Return the pools of the network's file. Raise CniError 7 if the network has no ranges."""
    ipam = next((each.folded_ipam for each in network.plugins if ranges(each.folded_ipam)), None)
    if ipam is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f'network "{network.name}" has no address pool',
            f'No plugin in {network.file or "its configuration"} has "ipam" with "ranges" or "subnet".',
        )
    folder = Path(str(ipam.get("datadir") or _DEFAULT_FOLDER)) / network.name
    leases = Leases(folder)
    listed = [each for each in leases.list_top() if each.address is not None] if leases.exists() else []
    listed.sort(key=_place)
    held = [each.address for each in listed if not each.is_empty()]
    pools = [
        _pool(spans, [each for each in held if each], parse_last(leases.read_last(number)))
        for number, spans in enumerate(_spans(ipam, network.file))
    ]
    return Pools(folder, tuple(pools), tuple(listed))


def _place(lease: Lease) -> tuple[int, int]:
    address = lease.address
    return (address.version, int(address)) if address else (0, 0)


def _pool(spans: Sequence[Span], held: Iterable[IpAddress], last: IpAddress | None) -> Pool:
    used = sum(any(each in span and each != span.gateway for span in spans) for each in held)
    return Pool(tuple(spans), used, sum(each.size for each in spans) - used, last)


def _spans(ipam: dict[str, Any], file: str) -> list[list[Span]]:
    try:
        return [[_span(fold(each)) for each in range_set] for range_set in ranges(ipam)]  # type: ignore[arg-type] # else AttributeError
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CniError(
            Code.INVALID_CONFIG,
            f"could not read the ranges in {file}: {error}",
            'Run "pycni status" for details.',
        ) from error


def _span(conf: dict[str, Any]) -> Span:
    subnet = parse_cidr(conf["subnet"]).network
    given = [parse_ip(conf[key]) if conf.get(key) else None for key in ("rangestart", "rangeend", "gateway")]
    first = subnet.network_address + 1
    last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
    return Span(given[0] or first, given[1] or last, given[2] or first)

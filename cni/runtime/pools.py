"""What host-local's pools of a network hold: how much is used and free, and who holds what. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.addresses import parse_cidr, parse_ip
from cni.errors import CniError, Code
from cni.ipam.leases import Leases, parse_last
from cni.runtime.network import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.ipam.leases import Lease
    from cni.result import IpAddress
    from cni.runtime.network import Network

TYPE = "host-local"
_DEFAULT_FOLDER = "/var/lib/cni/networks"


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses from `start` to `end`, both included; the gateway is never given away."""

    start: IpAddress
    end: IpAddress
    gateway: IpAddress

    def __contains__(self, address: IpAddress) -> bool:
        return address.version == self.start.version and int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    @property
    def size(self) -> int:
        """How many addresses it can give."""
        return int(self.end) - int(self.start) + 1 - (self.gateway in self)


@dataclass(frozen=True, slots=True)
class Pool:
    """A range set: `used` and `free` count addresses, `last` is the one given last, if that is known."""

    spans: tuple[Span, ...]
    used: int
    free: int
    last: IpAddress | None


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of a network, the folder of their leases, and the leases by address.

    Leases of no pool are of ranges that a runtime has given, or of an earlier configuration.
    """

    folder: Path
    pools: tuple[Pool, ...]
    leases: tuple[Lease, ...]


def take(network: Network) -> Pools:
    """Look at the pools that the network's file has. Raises CniError 7 where host-local gives no address."""
    ipam = next((conf for each in network.plugins if (conf := _host_local(each.document))), None)
    if ipam is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f'network "{network.name}" has no pool of {TYPE}',
            f'no plugin in {network.file or "its configuration"} has "ipam" of this type',
        )
    folder = Path(str(ipam.get("datadir") or _DEFAULT_FOLDER)) / network.name
    leases = Leases(folder)
    found = [each for each in leases.list_top() if each.address is not None] if leases.exists() else []
    found.sort(key=_place)
    held = [each.address for each in found if not each.is_empty()]
    pools = [
        _pool(spans, [each for each in held if each], parse_last(leases.read_last(number)))
        for number, spans in enumerate(_spans(ipam, network.file))
    ]
    return Pools(folder, tuple(pools), tuple(found))


def _host_local(document: dict[str, Any]) -> dict[str, Any] | None:
    ipam = fold(document).get("ipam")
    found = fold(ipam) if isinstance(ipam, dict) else {}
    return found if found.get("type") == TYPE else None


def _place(lease: Lease) -> tuple[int, int]:
    address = lease.address
    return (address.version, int(address)) if address else (0, 0)


def _pool(spans: Sequence[Span], held: Iterable[IpAddress], last: IpAddress | None) -> Pool:
    used = sum(any(each in span and each != span.gateway for span in spans) for each in held)
    return Pool(tuple(spans), used, sum(each.size for each in spans) - used, last)


def _spans(ipam: dict[str, Any], file: str) -> list[list[Span]]:
    sets = [[ipam], *(ipam.get("ranges") or [])] if ipam.get("subnet") else ipam.get("ranges") or []
    try:
        return [[_span(fold(each)) for each in listed] for listed in sets]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise CniError(
            Code.INVALID_CONFIG, f"could not read the ranges in {file}: {error}", "STATUS tells more"
        ) from error


def _span(conf: dict[str, Any]) -> Span:
    subnet = parse_cidr(conf["subnet"]).network
    given = [parse_ip(conf[key]) if conf.get(key) else None for key in ("rangestart", "rangeend", "gateway")]
    first = subnet.network_address + 1
    last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
    return Span(given[0] or first, given[1] or last, given[2] or first)

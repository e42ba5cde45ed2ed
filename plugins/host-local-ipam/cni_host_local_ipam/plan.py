"""Which address comes next, and what the answer says. Pure."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.result import Dns, Ip, Result
from cni_host_local_ipam.conf import parse_requested
from cni_host_local_ipam.ranges import Range, RangeSet, find_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.request import Request
    from cni.result import IpAddress
    from cni_host_local_ipam.conf import HostLocalConf


class Choice(NamedTuple):
    """The address that range set `number` gives; `is_held` when the attachment has it already."""

    number: int
    address: IpAddress
    range: Range
    is_held: bool = False


def read_args(request: Request) -> tuple[IpAddress, ...]:
    """Return the address that CNI_ARGS asks for, if any. Raises CniError 4."""
    text = request.known_args("IP").get("IP")
    if not text:
        return ()
    try:
        return (parse_requested(text),)
    except ValueError as error:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'ARGS: error parsing value of pair "IP={text}": {error}',
            "IP in CNI_ARGS is one address, such as 10.1.0.5",
        ) from error


def list_requested(asked: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
    """Give the addresses asked for, each once, in the order in which they were."""
    return tuple(dict.fromkeys(asked))


def assign(
    range_sets: Sequence[RangeSet], requested: Iterable[IpAddress]
) -> tuple[list[IpAddress | None], list[IpAddress]]:
    """Give each range set the first request that it can meet, and the requests that are left."""
    left = list(requested)
    assigned: list[IpAddress | None] = []
    for range_set in range_sets:
        met = next((each for each in left if find_range(range_set, each)), None)
        if met is not None:
            left.remove(met)
        assigned.append(met)
    return assigned, left


def list_candidates(range_set: RangeSet, last: IpAddress | None) -> Iterator[tuple[IpAddress, Range]]:
    """Give every address of the set that may be given away, lazily, in the order in which they are tried.

    The ranges form a ring. It starts behind `last`, the address given last, which so comes last itself;
    without it, or when it is of no range of the set, at the beginning of the first range.
    """
    index = next((i for i, each in enumerate(range_set) if last is not None and last in each), None)
    if index is None or last is None:
        first = position = (0, range_set[0].start)
    else:
        first = position = _step(range_set, index, last)
    while True:
        index, address = position
        if address != range_set[index].gateway:
            yield address, range_set[index]
        position = _step(range_set, index, address)
        if position == first:
            return


def _step(range_set: RangeSet, index: int, address: IpAddress) -> tuple[int, IpAddress]:
    if address != range_set[index].end:
        return index, address + 1
    index = (index + 1) % len(range_set)
    return index, range_set[index].start


def choose_free(
    range_set: RangeSet, last: IpAddress | None, is_usable: Callable[[IpAddress], bool]
) -> tuple[IpAddress, Range] | None:
    """Give the first candidate that is usable, None when none is."""
    return next((each for each in list_candidates(range_set, last) if is_usable(each[0])), None)


def count_addresses(range_set: RangeSet) -> int:
    """Give how many addresses the set can give away."""
    return sum(int(each.end) - int(each.start) + 1 - (each.gateway in each) for each in range_set)


def is_full(range_set: RangeSet, taken: Iterable[IpAddress]) -> bool:
    """Tell whether the set has no address left."""
    ranges = [(each, find_range(range_set, each)) for each in set(taken)]
    used = [address for address, found in ranges if found and address != found.gateway]
    return len(used) >= count_addresses(range_set)


def make_result(conf: HostLocalConf, choices: Iterable[Choice], dns: Dns) -> Result:
    """Give the answer: one address per range set, the routes as configured, no interfaces."""
    ips = [
        Ip(ip_interface((each.address, each.range.subnet.prefixlen)), each.range.gateway) for each in choices
    ]
    return Result(ips=tuple(ips), routes=tuple(each.to_route() for each in conf.ipam.routes), dns=dns)


def parse_resolv_conf(text: str) -> Dns:
    """Read a file as resolv.conf(5) describes it.

    Lists grow from line to line, the last `domain` counts, lines that say nothing are skipped.
    """
    lists: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    domain = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        keyword, *values = words
        if keyword == "nameserver":
            lists[keyword].append(values[0])
        elif keyword == "domain":
            domain = values[0]
        elif keyword in lists:
            lists[keyword] += values
    return Dns(tuple(lists["nameserver"]), domain, tuple(lists["search"]), tuple(lists["options"]))

"""The order of addresses, and the result of ADD. Pure."""

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
    """The address of range set `number`; `is_held` if the attachment already has it."""

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
    """Return the requested addresses in their order, each once."""
    return tuple(dict.fromkeys(asked))


def assign(
    range_sets: Sequence[RangeSet], requested: Iterable[IpAddress]
) -> tuple[list[IpAddress | None], list[IpAddress]]:
    """Return for each range set the first requested address that is in it, and the remaining requests."""
    left = list(requested)
    assigned: list[IpAddress | None] = []
    for range_set in range_sets:
        met = next((each for each in left if find_range(range_set, each)), None)
        if met is not None:
            left.remove(met)
        assigned.append(met)
    return assigned, left


def list_candidates(range_set: RangeSet, last: IpAddress | None) -> Iterator[tuple[IpAddress, Range]]:
    """Yield every address of the set that may be assigned, in the order in which they are tried.

    The ranges form a ring. It starts after `last`, the address assigned last, which therefore comes last. It
    starts at the beginning of the first range if `last` is None or in no range of the set.
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
    """Return the first candidate that is usable, None if none is."""
    return next((each for each in list_candidates(range_set, last) if is_usable(each[0])), None)


def count_addresses(range_set: RangeSet) -> int:
    """Return the number of addresses that the set can assign."""
    return sum(int(each.end) - int(each.start) + 1 - (each.gateway in each) for each in range_set)


def is_full(range_set: RangeSet, taken: Iterable[IpAddress]) -> bool:
    """Return whether all addresses of the set are taken."""
    ranges = [(each, find_range(range_set, each)) for each in set(taken)]
    used = [address for address, found in ranges if found and address != found.gateway]
    return len(used) >= count_addresses(range_set)


def make_result(conf: HostLocalConf, choices: Iterable[Choice], dns: Dns) -> Result:
    """Return the result: one address per range set, the configured routes, no interfaces."""
    ips = [
        Ip(ip_interface((each.address, each.range.subnet.prefixlen)), each.range.gateway) for each in choices
    ]
    return Result(ips=tuple(ips), routes=tuple(each.to_route() for each in conf.ipam.routes), dns=dns)


def parse_resolv_conf(text: str) -> Dns:
    """Read a file as resolv.conf(5) describes it.

    Lists grow from line to line, the last `domain` counts, and lines without a value are skipped.
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

"""The rules and routes of an interface in the container's namespace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import link, route, rule
from cni.kernel.rtnetlink import Netlink
from cni.kernel.rule import Rule
from cni.state.lock import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.route import KernelRoute
    from cni.request import Request
    from cni.result import IpNetwork
    from cni_sbr.plan import Source


@contextmanager
def opened(ns: Netns, *, removes: bool = False) -> Iterator[Netlink]:
    """Yield a socket in the namespace, with the lock that the Go plugin takes as well.

    With the lock no other call chooses a table there. It is on the file of the namespace, which is never
    created here. Processes of the container can hold it, so a block that only `removes` does not wait long.
    """
    with held(ns.fd, ns.path, removes=removes), Netlink(ns) as nl:
        yield nl


def required_link(nl: Netlink, request: Request) -> Link:
    """Return the container's link. Raise CniError 100 if there is none."""
    own = link.find(nl, request.ifname)
    if own is None:
        raise CniError(
            Code.KERNEL,
            f'failed to get network interface "{request.ifname}": Link not found',
            f"the plugin before sbr must make it in {request.netns}",
        )
    return own


def list_used(nl: Netlink) -> set[int]:
    """Return the tables that a rule leads to or that have a route, of any family."""
    return {each.table for each in rule.list_rules(nl)} | {
        each.table for each in route.list_routes(nl, 0) if each.table is not None
    }


def list_main(nl: Netlink, own: Link) -> list[KernelRoute]:
    """List the routes of a link in the main table."""
    return [each for each in route.list_all(nl, own.index) if each.route.table == route.MAIN_TABLE]


def rule_of(source: Source) -> Rule:
    """Return the rule of a source."""
    return Rule(source.ip.address.version, source.table, source.network)


def remove_rules(nl: Netlink, sources: Iterable[IpNetwork], table: int | None) -> None:
    """Remove all rules from these addresses: those that lead to `table`, or to any table for None."""
    wanted = set(sources)
    for each in rule.list_rules(nl):
        is_plain = each == Rule(each.version, each.table, each.src, priority=each.priority)
        if is_plain and each.src in wanted and table in {None, each.table}:
            rule.remove(nl, each)

"""Remove the veth pair of an attachment, whatever the container has done to its own end.

The host end is looked up and removed on the host, and the kernel removes the other end with it, in whichever
namespace that is by then. The container can move its end away and put another link in its place at any
moment. A name or an index in its namespace therefore proves nothing. A link of the container that only has
the name stays: it may be another container's by now, as a path such as /proc/PID/ns/net can pass to another
container before a late DEL comes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cni import delegate
from cni.errors import CniError, Code, ErrorList
from cni.interface.ipam import release_through_link
from cni.interface.pair import is_unfinished
from cni.interface.plan import plan_pair, recorded_host_end
from cni.kernel import link, link_removal, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni.marks import ALIAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.conf import NetConf
    from cni.interface.plan import PairPlan
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni.result import Interface, Result


def detach(conf: NetConf, request: Request, *steps: Callable[[], object]) -> None:
    """Remove the pair of an attachment, release its addresses, and take `steps`. All are tried.

    The addresses stay leased if the container may still be on its network: the pair could not be removed, or
    the caller may not look into the namespace. Raise the first error.
    """
    pair = known_pair(plan_pair(conf, request), request.prev_result)
    errors, removal = ErrorList(), ErrorList()
    errors.attempt(release_through_link, conf, request)
    is_unreached = any(each.code == Code.INVALID_NETNS for each in errors.errors)
    removal.attempt(partial(remove, early=link_removal.is_early(request.env)), pair, request.netns)
    errors.errors += removal.errors
    if conf.ipam.type and not is_unreached and not removal.errors:
        errors.attempt(delegate.delete, conf.ipam.type, request)
    for step in steps:
        errors.attempt(step)
    errors.raise_any()


class KnownPair(NamedTuple):
    """The facts that DEL has about the veth pair of an attachment.

    `host_name` and `alias` are those that this suite sets. `recorded` is the host end in the result of ADD,
    and `mac` the MAC address of the container's end there: these identify the pairs of the Go plugins. Both
    are empty when the runtime sent no result.
    """

    ifname: str
    host_name: str
    alias: str
    recorded: Interface | None
    mac: str

    @property
    def names(self) -> list[str]:
        """The names that the host end may have."""
        other = self.recorded.name if self.recorded else self.host_name
        return [self.host_name] if other == self.host_name else [self.host_name, other]

    def owns(self, end: Link | None) -> bool:
        """Return whether a link of the host is this attachment's host end."""
        if end is None or end.kind != veth.KIND:
            return False
        if end.name == self.host_name and (end.alias == self.alias or is_unfinished(end)):
            return True
        return (
            self.recorded is not None
            and (end.name, end.mac) == (self.recorded.name, self.recorded.mac)
            # Both ends of a VLAN's gateway are on the host.
            and end.netnsid is not None
            and not _is_anothers(end, self.alias)
        )


def known_pair(plan: PairPlan, result: Result | None) -> KnownPair:
    """Return what is known about a pair from its plan, and from the result of ADD if there is one."""
    inside = result.container_interface(plan.ifname) if result else None
    recorded = recorded_host_end(result, inside) if result and inside else None
    return KnownPair(plan.ifname, plan.host_name, plan.alias, recorded, inside.mac if inside else "")


def remove(pair: KnownPair, path: str, *, early: bool) -> None:
    """Remove the pair; succeed if it is gone.

    With `early`, return when the kernel has reported the removal, before it acknowledges it. Raise CniError,
    with code 8 if the pair may be in a namespace that the caller may not look at.
    """
    with Netlink() as host:
        ends = {name: link.find(host, name) for name in pair.names}
        own = [each for each in ends.values() if each and pair.owns(each)]
        for each in own:
            link_removal.remove_in(None, each.name, each.index, early=early)
        if own:
            return
        try:
            ns = netns.find(path)
        except CniError:
            # Without its host end a pair is gone, wherever its other end was.
            if pair.recorded is None or ends[pair.recorded.name]:
                raise
            return
        if ns is not None:
            with ns:
                _remove_inside(host, ns, pair, early=early)


def _remove_inside(host: Netlink, ns: Netns, pair: KnownPair, *, early: bool) -> None:
    """Remove a pair whose host end has an unknown name, by the container's link."""
    with Netlink(ns) as nl:
        inside = link.find(nl, pair.ifname)
    if inside is None or inside.kind != veth.KIND:
        return
    end = veth.find_by_index(host, inside, ns)
    if not _is_of_pair(inside, end, pair):
        return
    if end:
        link_removal.remove_in(None, end.name, end.index, early=early)
    else:
        link_removal.remove_in(ns, inside.name, inside.index, early=early)


def _is_of_pair(inside: Link, end: Link | None, pair: KnownPair) -> bool:
    """Return whether a link of the container is the attachment's; `end` is its other end on the host.

    Without a result, a pair that this suite has not marked may be one of the Go plugins'.
    """
    if end is None:
        return inside.mac == pair.mac
    if end.alias == pair.alias:
        return True
    return not _is_anothers(end, pair.alias) and (pair.recorded is None or end.name == pair.recorded.name)


def _is_anothers(end: Link, alias: str) -> bool:
    """Return whether a host end is marked as another attachment's, or has no owner yet."""
    return is_unfinished(end) or (end.alias.startswith(ALIAS) and end.alias != alias)

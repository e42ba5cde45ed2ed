"""Remove the veth pair of an attachment, whatever the container has made of its own end.

The host end is looked up and removed on the host, and the kernel removes the other end with it, wherever that
is by then. The container can move its end away and put another link in its place at any moment, so that what
is removed in its namespace by name or index proves nothing. A link of the container that only has the name
stays, as it may be another container's by now: a path such as /proc/PID/ns/net can pass to another one
before a late DEL comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError
from cni.kernel import link, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni.marks import ALIAS
from cni_bridge.links import is_unfinished
from cni_bridge.plan import recorded_host_end

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.result import Interface, Result


class Pair(NamedTuple):
    """How the veth pair of an attachment is known.

    `host_name` and `alias` are those that this suite gives. `recorded` is the host end in the result of ADD
    and `mac` the MAC address of the container's end there: by these the pairs of the Go plugins are known.
    Both are empty when the runtime sent no result.
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
        if end is None or end.kind != "veth":
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


def pair_of(ifname: str, host_name: str, alias: str, result: Result | None) -> Pair:
    """Return how the pair is known, with what the result of ADD says about it if there is one."""
    inside = result.container_interface(ifname) if result else None
    recorded = recorded_host_end(result, inside) if result and inside else None
    return Pair(ifname, host_name, alias, recorded, inside.mac if inside else "")


def remove(pair: Pair, path: str, *, early: bool) -> None:
    """Remove the pair; fine if it is gone.

    `early` is to go on when the kernel has told so, without its acknowledgement. Raises CniError, with code 8
    if the pair may be in a namespace that the caller may not look at.
    """
    with Netlink() as host:
        found = {name: link.find(host, name) for name in pair.names}
        own = [each for each in found.values() if each and pair.owns(each)]
        for each in own:
            link.remove_in(None, each.name, each.index, early=early)
        if own:
            return
        try:
            ns = netns.find(path)
        except CniError:
            # Without its host end a pair is gone, wherever its other end was.
            if pair.recorded is None or found[pair.recorded.name]:
                raise
            return
        if ns is not None:
            with ns:
                _remove_inside(host, ns, pair, early=early)


def _remove_inside(host: Netlink, ns: Netns, pair: Pair, *, early: bool) -> None:
    """Remove a pair whose host end has a name that nobody knows, by the container's link."""
    with Netlink(ns) as inside:
        found = link.find(inside, pair.ifname)
    if found is None or found.kind != "veth":
        return
    end = veth.find_by_index(host, found, ns)
    if not _is_of_pair(found, end, pair):
        return
    if end:
        link.remove_in(None, end.name, end.index, early=early)
    else:
        link.remove_in(ns, found.name, found.index, early=early)


def _is_of_pair(found: Link, end: Link | None, pair: Pair) -> bool:
    """Return whether a link of the container is the attachment's; `end` is its other end on the host.

    Without a result, a pair on which this suite has left no mark may be one of the Go plugins'.
    """
    if end is None:
        return found.mac == pair.mac
    if end.alias == pair.alias:
        return True
    return not _is_anothers(end, pair.alias) and (pair.recorded is None or end.name == pair.recorded.name)


def _is_anothers(end: Link, alias: str) -> bool:
    """Return whether a host end is marked as another attachment's, or as one that an ADD is making."""
    return is_unfinished(end) or (end.alias.startswith(ALIAS) and end.alias != alias)

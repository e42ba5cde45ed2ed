"""GC finders that interface plugins share: host ends, unfinished pairs, and rules of invalid attachments."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select, spoofcheck
from cni.interface.pair import is_unfinished
from cni.kernel import link, veth
from cni.kernel.rtnetlink import Netlink
from cni.marks import alias, alias_prefix, attachment_of
from cni.operations.garbage import Removal, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from cni.kernel.link import Link
    from cni.request import Attachment

    Valid = frozenset[Attachment]


def list_links() -> list[Link]:
    """List the links of the host."""
    with Netlink() as nl:
        return link.list_links(nl)


def list_stale_ends(network: str, valid: Valid, links: list[Link]) -> list[Link]:
    """List the host ends whose aliases name attachments of the network that are not valid."""
    prefix = alias_prefix(network)
    kept = {alias(network, each) for each in valid}
    return [
        each
        for each in links
        if each.kind == veth.KIND and each.alias.startswith(prefix) and each.alias not in kept
    ]


def host_ends(network: str, valid: Valid) -> Iterator[Removal]:
    """Find the host ends of attachments that are not valid; the first finder, as others look at links."""
    for each in list_stale_ends(network, valid, list_links()):
        stale = Stale("link", each.name, network)
        if owner := attachment_of(each.alias, network):
            stale = stale._replace(container_id=owner.container_id, ifname=owner.ifname)
        yield Removal((stale,), partial(_remove_host_end, each.name, each.alias))


def _remove_host_end(name: str, mark: str) -> None:
    with Netlink() as nl:
        end = link.find(nl, name)
        if end and end.alias == mark:
            link.remove(nl, name, end.index)


def unfinished_ends(
    network: str,
    locked: Callable[[], AbstractContextManager[None]],
    find_master: Callable[[Netlink], int | None],
) -> Iterator[Removal]:
    """Find the pairs without an owner, whose ADD was killed.

    `locked` takes the lock under which the plugin creates pairs: no ADD works on one while it is held.
    `find_master` returns the index of the bridge whose ports they are, 0 for none; None if there are no
    pairs.
    """
    with Netlink() as nl:
        may_be_there = bool(_list_unfinished(nl, find_master))
    if not may_be_there:
        return
    with locked(), Netlink() as nl:
        ends = _list_unfinished(nl, find_master)
    for each in ends:
        stale = Stale("link", each.name, network, reason="its ADD was killed before the end")
        yield Removal((stale,), partial(_remove_unfinished, locked, each))


def _list_unfinished(nl: Netlink, find_master: Callable[[Netlink], int | None]) -> list[Link]:
    master = find_master(nl)
    if master is None:
        return []
    return [each for each in link.list_links(nl, master) if is_unfinished(each) and each.master == master]


def _remove_unfinished(locked: Callable[[], AbstractContextManager[None]], end: Link) -> None:
    # The MAC address is random: a link that has got the name and the index since has another one.
    with locked(), Netlink() as nl:
        now = link.find_by_index(nl, end.index)
        if now and now.mac == end.mac and is_unfinished(now):
            link.remove(nl, now.name, now.index)


def rules(network: str, valid: Valid) -> Iterator[Removal]:
    """Find firewall rules of attachments that are not valid.

    Whatever the configuration says now: it may have been another one at ADD.
    """
    if stale := select.stale(network, valid):
        yield Removal(tuple(stale), partial(select.collect, network, valid))


def spoof_checks(network: str, valid: Valid) -> Iterator[Removal]:
    """Find MAC spoof checks of attachments that are not valid and whose host end is gone."""
    links = list_links()
    stale = {each.name for each in list_stale_ends(network, valid, links)}
    for owner in spoofcheck.list_stale(valid, [each for each in links if each.name not in stale]):
        name = f"bridge {spoofcheck.TABLE} {spoofcheck.chain_name(owner)}"
        check = Stale("nftables chain", name, "", owner.container_id, owner.ifname)
        yield Removal((check,), partial(spoofcheck.remove, owner))

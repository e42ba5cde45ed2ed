"""GC: remove the ifbs of attachments that are no longer valid, and those that no link is redirected to."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from cni.interface.pair import pairs_locked
from cni.kernel import ifb, link, tc
from cni.kernel.rtnetlink import Netlink
from cni.operations.garbage import Removal, Stale
from cni_bandwidth.ifbs import is_unfinished
from cni_bandwidth.plan import PREFIX, go_name, owner_of_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_bandwidth.conf import BandwidthConf

_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


def finders(conf: BandwidthConf, request: Request) -> list[Finder]:
    """Return the finders of ifbs: of this network, of ADDs that were killed, and of the Go plugin."""
    valid = request.required_valid()
    return [
        partial(_of_network, conf.name, valid),
        partial(_unfinished, conf.name),
        partial(_of_go, conf.name, valid),
    ]


def _list_ifbs(nl: Netlink) -> list[Link]:
    return [each for each in link.list_links(nl) if each.kind == ifb.KIND and _NAME.fullmatch(each.name)]


def _of_network(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    with Netlink() as nl:
        listed = _list_ifbs(nl)
    for each in listed:
        owner = owner_of_mark(each.alias, network)
        if owner and owner not in valid:
            stale = Stale("link", each.name, network, owner.container_id, owner.ifname)
            yield Removal((stale,), partial(_remove, each))


def _unfinished(network: str) -> Iterator[Removal]:
    with Netlink() as nl:
        if not any(map(is_unfinished, _list_ifbs(nl))):
            return
    # No ADD is at work on one while the lock is held.
    with pairs_locked(), Netlink() as nl:
        found = [each for each in _list_ifbs(nl) if is_unfinished(each)]
    for each in found:
        stale = Stale("link", each.name, network, reason="its ADD was killed before the end")
        yield Removal((stale,), partial(_remove, each))


def _of_go(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    """Find ifbs of the Go plugin whose host end is gone: their names do not tell the network.

    The Go plugin sets the limit of an ifb last. One without a limit may be of an ADD at work.
    """
    used = {go_name(network, each.container_id) for each in valid}
    with Netlink() as nl:
        listed = [
            each
            for each in _list_ifbs(nl)
            if not each.alias and each.group != link.UNFINISHED and each.name not in used
        ]
        if not listed:
            return
        targets = {
            found.redirected_to
            for each in link.list_links(nl)
            if each.kind != ifb.KIND
            for found in tc.list_filters(nl, each.name, each.index)
        }
        stale = [
            each
            for each in listed
            if each.index not in targets and tc.find_qdisc(nl, each.name, each.index) is not None
        ]
    for each in stale:
        thing = Stale("link", each.name, network, reason="no link is redirected to it")
        yield Removal((thing,), partial(_remove, each))


def _remove(listed: Link) -> None:
    # The MAC address is random: a link that has got the name since has another one.
    with Netlink() as nl:
        now = link.find_by_index(nl, listed.index)
        if now and (now.mac, now.alias) == (listed.mac, listed.alias):
            link.remove(nl, now.name, now.index)

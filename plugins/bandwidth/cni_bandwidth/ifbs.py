"""The ifb of an attachment: what a container sends is redirected to it, and limited there.

The Go plugin derives its name from network and container ID, so that two interfaces of a container would
share one, and network "a1" with container "b" has the name of "a" with "1b". Here the alias names the owner,
and an ifb whose name is taken gets another one.

An ifb is created in the group of unfinished links, and gets its alias next, both under the lock of pairs. One
without an alias that is not in this group is the Go plugin's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.interface.pair import pairs_locked
from cni.kernel import ifb, link, link_removal, tc
from cni_bandwidth.plan import mark, names
from cni_bandwidth.shapes import explained

if TYPE_CHECKING:
    from cni.conf import NetConf
    from cni.firewall.intents import Owner
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.request import Request
    from cni.result import Result


def is_unfinished(other: Link) -> bool:
    """Return whether a link is an ifb whose ADD was killed, if the lock is held."""
    return other.kind == ifb.KIND and other.group == link.UNFINISHED and not other.alias


def find(nl: Netlink, owner: Owner, alias: str, result: Result | None) -> Link | None:
    """Return the ifb of an attachment. One of the Go plugin counts if the result has it, or is missing."""
    found = [each for name in names(owner) if (each := link.find(nl, name)) and each.kind == ifb.KIND]
    own = next((each for each in found if each.alias == alias), None)
    return own or next((each for each in found if _is_gos(each, owner, result)), None)


def _is_gos(other: Link, owner: Owner, result: Result | None) -> bool:
    if other.alias or other.group == link.UNFINISHED or other.name != names(owner)[0]:
        return False
    listed = [each.name for each in result.interfaces if not each.sandbox] if result else []
    return not listed or other.name in listed


def create(nl: Netlink, owner: Owner, alias: str, mtu: int) -> Link:
    """Create the ifb of an attachment, down. The caller has removed an earlier one."""
    with pairs_locked():
        for name in names(owner):
            try:
                is_new = ifb.create(nl, name, link.new_mac(), mtu, link.UNFINISHED)
            except KernelError as error:
                raise explained(error) from error
            if is_new:
                nl.batch([link.set_owner(name, alias)])
                return link.get(nl, name)
    raise CniError(
        Code.ALREADY_EXISTS,
        f"adding link: file exists: {' and '.join(names(owner))} are links of other attachments",
        "Remove the one that no container has with: ip link del NAME",
    )


def remove(nl: Netlink, conf: NetConf, owner: Owner, request: Request, *, early: bool = False) -> None:
    """Remove the ifb of an attachment, and what an ADD of it has left that was killed.

    With `early`, return when the kernel has announced that the ifb is gone, before it acknowledges it.
    """
    with pairs_locked():
        remove_unfinished(nl, names(owner))
        if found := find(nl, owner, mark(conf, request), request.prev_result):
            link_removal.remove_in(None, found.name, found.index, early=early)


def remove_unfinished(nl: Netlink, listed: tuple[str, ...]) -> None:
    """Remove those of these links whose ADD was killed; the caller has the lock."""
    for name in listed:
        if (found := link.find(nl, name)) and is_unfinished(found):
            link.remove(nl, found.name, found.index)


def redirect(nl: Netlink, host_end: Link, target: Link) -> None:
    """Redirect what the container sends to its ifb, in place of an earlier redirection.

    Raise CniError 105 if another program filters there.
    """
    name, index = host_end.name, host_end.index
    wanted = [tc.add_ingress(name, index), tc.add_redirect(name, index, target.index)]
    refusals = nl.attempt(wanted[:1])
    if refusals[0] is not None:
        if refusals[0].errno != errno.EEXIST:
            raise explained(refusals[0])
        if not remove_redirection(nl, host_end):
            raise CniError(
                Code.ALREADY_EXISTS,
                f'create ingress qdisc: file exists: another program filters what "{name}" receives',
                f"Remove it with: tc qdisc del dev {name} ingress",
            )
        nl.batch(wanted[:1])
    try:
        nl.batch(wanted[1:])
    except KernelError as error:
        raise explained(error) from error


def remove_redirection(nl: Netlink, host_end: Link) -> bool:
    """Remove a redirection; return False, and remove nothing, if another program filters there."""
    name, index = host_end.name, host_end.index
    present = tc.find_qdisc(nl, name, index, tc.INGRESS)
    if present is None:
        return True
    # A redirection to an ifb that is gone has no target.
    foreign = [
        each
        for each in tc.list_filters(nl, name, index)
        if (each.kind, each.priority, each.classid) != ("u32", 1, tc.handle(1, 1))
    ]
    if present.kind != "ingress" or foreign:
        return False
    tc.remove_qdisc(nl, name, index, tc.INGRESS)
    return True


def is_redirected(nl: Netlink, host_end: Link, target: Link) -> bool:
    """Return whether all that the container sends goes to its ifb."""
    filters = tc.list_filters(nl, host_end.name, host_end.index)
    return any(each.redirected_to == target.index for each in filters)

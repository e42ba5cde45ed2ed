"""Move a link into another network namespace and give it a name there.

The kernel switches a moved link off and drops its addresses, routes, master and queueing disciplines. It
keeps the MAC address, the alias and, if that is free there, the index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.kernel import link, rtnetlink
from cni.kernel.attributes import number, text
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink


class Side(NamedTuple):
    """A network namespace and a socket in it."""

    ns: Netns
    nl: Netlink


def move(moved: Link, source: Side, target: Side, name: str) -> Link:
    """Move a link of `source` to `target`, where its name is `name`; return it as it is there, down.

    Raise CniError 105 if the name is taken there, else KernelError. The link is in `source` under its name
    then.
    """
    if link.find(target.nl, name):
        raise CniError(
            Code.ALREADY_EXISTS,
            f'{_describe(moved, target)}: "{name}" exists there',
            f'remove or rename "{name}" in that namespace',
        )
    try:
        source.nl.batch([_message(moved, target, name)])
    except KernelError:
        _bring_back(moved, source, target)
        raise
    return link.get(target.nl, name)


def _bring_back(moved: Link, source: Side, target: Side) -> None:
    """Undo a move after which the kernel refused the name: it moves first and renames then."""
    if link.find_by_index(source.nl, moved.index):
        return
    stranded = link.find(target.nl, moved.name)
    if stranded and stranded.mac == moved.mac:
        target.nl.batch([_message(stranded, source, moved.name)])


def _message(moved: Link, target: Side, name: str) -> Message:
    attrs = number(link.NET_NS_FD, target.ns.fd) + text(link.IFNAME, name)
    return Message(_describe(moved, target), rtnetlink.RTM_SETLINK, body=link.pack(attrs, index=moved.index))


def _describe(moved: Link, target: Side) -> str:
    return f'could not move "{moved.name}" into network namespace "{target.ns.path}"'

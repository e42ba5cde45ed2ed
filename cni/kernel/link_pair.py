"""Prove, from the host's side, which link of a container a host end leads to.

A process with CAP_NET_ADMIN in its namespace chooses names, indices, MAC addresses and peers of the links
there. The container's view is therefore never a proof: a veth pair within the container can have the index
of any link of the host as its peer's. The host's view is one: the kernel reports there in which namespace
the other end of a link is (IFLA_LINK_NETNSID) and which index it has there, and no container changes that.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.kernel import link, rtnetlink
from cni.kernel.attributes import attributes, number, shown_number
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink

# <linux/net_namespace.h>: struct rtgenmsg, padded, then attributes
_HEAD = bytes(4)
_NSID, _FD = 1, 3
# <linux/if_link.h>: struct ifinfomsg with the index alone, and the namespace that the question is about
_LINK_HEAD = struct.Struct("=4xi8x")
_TARGET_NETNSID = 46
# NETNSA_NSID_NOT_ASSIGNED, -1
_NO_NUMBER = 0xFFFFFFFF


class Ends(NamedTuple):
    """Links of the host, in the order of the names asked for, and the host's number for a namespace."""

    links: tuple[Link | None, ...]
    netnsid: int

    def leads_inside(self, end: Link) -> bool:
        """Return whether the other end of `end` is in the namespace; its index there is `end.peer`."""
        return end.kind == "veth" and end.netnsid == self.netnsid != _NO_NUMBER

    def leads_to(self, end: Link | None, inner: Link | None) -> bool:
        """Return whether `end` is the other end of `inner`, a link of the namespace."""
        return end is not None and inner is not None and self.leads_inside(end) and end.peer == inner.index

    def end_of(self, inner: Link | None) -> Link | None:
        """Return the first of the links that is the other end of `inner`."""
        return next((each for each in self.links if self.leads_to(each, inner)), None)


def look_up(host: Netlink, names: Sequence[str], ns: Netns) -> Ends:
    """Look links of the host up and the number of a namespace, in one send."""
    # In this order: a namespace has a number once a link with its other end there was looked up.
    links, told = link.find_all(host, names, _ask_number(ns))
    return Ends(tuple(links), _parse_number(told))


def find_by_index(host: Netlink, inner: Link, ns: Netns) -> Link | None:
    """Return the other end of `inner` if it is on the host, by the index that the container's view shows.

    For an attachment whose host end has a name that nobody knows. The index is a hint only.
    """
    end = link.find_by_index(host, inner.peer) if inner.peer else None
    [told] = host.request(_ask_number(ns))
    return end if Ends((end,), _parse_number(told)).leads_to(end, inner) else None


def lives(host: Netlink, end: Link) -> bool:
    """Return whether the other end of `end` is in another network namespace, and that one is in use.

    The kernel removes the links of a namespace some time after its last user has gone.
    """
    if not end.peer or end.netnsid in {None, _NO_NUMBER}:
        return False
    body = _LINK_HEAD.pack(end.peer) + number(_TARGET_NETNSID, end.netnsid or 0)
    [answer] = host.ask(Message(f'look up the other end of "{end.name}"', rtnetlink.RTM_GETLINK, body=body))
    # That it may not be looked up, or has moved on meanwhile, does not prove that the namespace is gone.
    return not (isinstance(answer, KernelError) and answer.errno == errno.EINVAL)


def _ask_number(ns: Netns) -> Message:
    return Message("look up the namespace", rtnetlink.RTM_GETNSID, body=_HEAD + number(_FD, ns.fd))


def _parse_number(told: bytes) -> int:
    found = attributes(told[len(_HEAD) :])
    return shown_number(found[_NSID]) if _NSID in found else _NO_NUMBER

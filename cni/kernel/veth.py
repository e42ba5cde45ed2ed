"""veth pairs: create one, and prove from the host's side which link of a container a host end leads to.

A process with CAP_NET_ADMIN in its namespace chooses names, indices, MAC addresses and peers of the links
there. The container's view is therefore never a proof: a veth pair within the container can have the index
of any link of the host as its peer's. The host's view is a proof: the kernel reports there in which namespace
the other end of a link is (IFLA_LINK_NETNSID) and which index it has there, and no container changes that.
`link.remove` with either end removes both.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.kernel import link, nsid, rtnetlink
from cni.kernel.attributes import nest, number
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink

KIND = "veth"
# VETH_INFO_PEER, <linux/veth.h>
_PEER = 1
# <linux/if_link.h>: struct ifinfomsg with the index alone, and the namespace that the question is about
_LINK_HEAD = struct.Struct("=4xi8x")
_TARGET_NETNSID = 46


class VethSpec(NamedTuple):
    """A veth pair to create: the host end is here, the container end is created in `netns`.

    The MAC addresses are set explicitly, since programs on the host may change those that the kernel picks.
    `mtu` 0 leaves the MTU to the kernel. `master` is the index of the host end's bridge, 0 for none;
    `group` is the host end's.
    """

    host_name: str
    host_mac: str
    container_name: str
    container_mac: str
    netns: Netns
    mtu: int = 0
    master: int = 0
    group: int = 0


class Ends(NamedTuple):
    """Links of the host, in the order of the names asked for, and the host's number for a namespace."""

    links: tuple[Link | None, ...]
    netnsid: int

    def leads_inside(self, end: Link) -> bool:
        """Return whether the other end of `end` is in the namespace; its index there is `end.peer`."""
        return end.kind == KIND and end.netnsid == self.netnsid != nsid.NONE

    def leads_to(self, end: Link | None, inner: Link | None) -> bool:
        """Return whether `end` is the other end of `inner`, a link of the namespace."""
        return end is not None and inner is not None and self.leads_inside(end) and end.peer == inner.index

    def end_of(self, inner: Link | None) -> Link | None:
        """Return the first of the links that is the other end of `inner`."""
        return next((each for each in self.links if self.leads_to(each, inner)), None)


def new_host_name() -> str:
    """Return a random name for the host end of a veth pair, as "veth1a2b3c4d"."""
    return f"veth{os.urandom(4).hex()}"


def create(nl: Netlink, spec: VethSpec) -> bool:
    """Create a veth pair, both ends down; return False if one of the two names is taken. Raise KernelError.

    Raise CniError 4 for a name with a "%": the kernel takes that for a pattern and puts a number in.
    """
    if "%" in spec.container_name:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'failed to make veth pair: no link can be called "{spec.container_name}"',
            'the kernel numbers links whose names have a "%"; give another CNI_IFNAME',
        )
    container = link.identity(spec.container_name, spec.container_mac, spec.mtu)
    peer = nest(_PEER, link.pack(container, number(link.NET_NS_FD, spec.netns.fd)))
    host = link.identity(spec.host_name, spec.host_mac, spec.mtu)
    master = number(link.MASTER, spec.master) if spec.master else b""
    group = number(link.GROUP, spec.group) if spec.group else b""
    return link.create(nl, "failed to make veth pair", KIND, peer, host, master, group)


def describe_container_end(host: Link, spec: VethSpec) -> Link | None:
    """Return the container end of a pair just created, without a look-up.

    None if the kernel did not report its index.
    """
    if not host.peer:
        return None
    own = replace(host, name=spec.container_name, index=host.peer, mac=spec.container_mac, peer=host.index)
    return replace(own, master=0, alias="", group=0, netnsid=None, port_kind="", port_data=b"")


def find(host: Netlink, names: Sequence[str], ns: Netns) -> Ends:
    """Look up links of the host and the number of a namespace, in one send."""
    # In this order: a namespace has a number once a link with its other end there was looked up.
    links, answer = link.find_all(host, names, nsid.ask(ns))
    if isinstance(answer, KernelError):
        raise answer
    return Ends(tuple(links), nsid.parse(answer))


def find_by_index(host: Netlink, inner: Link, ns: Netns) -> Link | None:
    """Return the other end of `inner` if it is on the host, by the index that the container's view shows.

    For an attachment whose host end has an unknown name. The index is a hint only.
    """
    end = link.find_by_index(host, inner.peer) if inner.peer else None
    return end if Ends((end,), nsid.get(host, ns)).leads_to(end, inner) else None


def is_other_end_alive(host: Netlink, end: Link) -> bool:
    """Return whether the other end of `end` is in another network namespace, and that one is in use.

    The kernel removes the links of a namespace some time after its last user has gone.
    """
    if not end.peer or end.netnsid in {None, nsid.NONE}:
        return False
    body = _LINK_HEAD.pack(end.peer) + number(_TARGET_NETNSID, end.netnsid or 0)
    [answer] = host.ask(Message(f'look up the other end of "{end.name}"', rtnetlink.RTM_GETLINK, body=body))
    # Another refusal, or a link that has moved on meanwhile, does not prove that the namespace is gone.
    return not (isinstance(answer, KernelError) and answer.errno == errno.EINVAL)

"""The numbers by which a network namespace knows others, as IFLA_LINK_NETNSID shows them.

Only the kernel sets these numbers, so they prove in which namespace the other end of a link is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import rtnetlink
from cni.kernel.attributes import attributes, number, shown_number
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink

# <linux/net_namespace.h>: struct rtgenmsg, padded, then attributes
_HEAD = bytes(4)
_NSID, _FD = 1, 3
# NETNSA_NSID_NOT_ASSIGNED, -1
NONE = 0xFFFFFFFF


def ask(ns: Netns) -> Message:
    """Return the message that asks for the number of a namespace; `parse` reads the response."""
    return Message("look up the namespace", rtnetlink.RTM_GETNSID, body=_HEAD + number(_FD, ns.fd))


def parse(response: bytes) -> int:
    """Return the number in the response to `ask`, `NONE` if the namespace has none here."""
    shown = attributes(response[len(_HEAD) :])
    return shown_number(shown[_NSID]) if _NSID in shown else NONE


def get(nl: Netlink, ns: Netns) -> int:
    """Return the number that the socket's namespace has for `ns`, `NONE` if it has none."""
    [response] = nl.request(ask(ns))
    return parse(response)

"""Read announcements of rtnetlink: which link, address or route of the host is gone, or switched off."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.kernel import rtnetlink
from cni.kernel.attributes import attributes, shown_number, shown_text
from cni.kernel.link import HEAD, IFF_UP, IFNAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.announcements import Announcement
    from cni.result import IpAddress

LINK_GONE, LINK_DOWN, PORT_GONE, ADDRESS_GONE, ROUTE_GONE, FORWARDING_OFF = range(6)

# struct ifaddrmsg, rtmsg and netconfmsg, and their attributes
_ADDRESS_HEAD = struct.Struct("=BBBBI")
_ROUTE_HEAD = struct.Struct("=8BI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DST, _OIF = 1, 4
_RTM_NEWNETCONF = 80
_NETCONF_BYTES = 4
_NETCONF_IFINDEX, _NETCONF_FORWARDING = 1, 2
# The index that stands for the setting of the whole host.
_EVERY_LINK = 0xFFFFFFFF


class Change(NamedTuple):
    """A change; `name` is known for links, `link_index` for others. FORWARDING_OFF is of the whole host."""

    kind: int
    link_index: int
    name: str = ""
    address: IpAddress | None = None


def read(message: Announcement) -> Iterator[Change]:
    """Yield the change that a message announces, if it takes something away."""
    kind, payload = message
    if kind in {rtnetlink.RTM_DELLINK, rtnetlink.RTM_NEWLINK}:
        yield from _read_link(kind, payload)
    elif kind == rtnetlink.RTM_DELADDR:
        index = _ADDRESS_HEAD.unpack_from(payload)[-1]
        shown = attributes(payload[_ADDRESS_HEAD.size :], (_IFA_ADDRESS, _IFA_LOCAL))
        if packed := shown.get(_IFA_LOCAL) or shown.get(_IFA_ADDRESS):
            yield Change(ADDRESS_GONE, index, address=ip_address(packed))
    elif kind == rtnetlink.RTM_DELROUTE:
        shown = attributes(payload[_ROUTE_HEAD.size :], (_DST, _OIF))
        # A default route has no destination.
        if packed := shown.get(_DST):
            yield Change(ROUTE_GONE, shown_number(shown.get(_OIF, b"")), address=ip_address(packed))
    elif kind == _RTM_NEWNETCONF:
        shown = attributes(payload[_NETCONF_BYTES:], (_NETCONF_IFINDEX, _NETCONF_FORWARDING))
        # The kernel announces the setting of each new link, too.
        of_host = shown_number(shown.get(_NETCONF_IFINDEX, b"")) == _EVERY_LINK
        if of_host and _NETCONF_FORWARDING in shown and not shown_number(shown[_NETCONF_FORWARDING]):
            yield Change(FORWARDING_OFF, 0)


def _read_link(kind: int, payload: bytes) -> Iterator[Change]:
    family, _, index, flags, _ = HEAD.unpack_from(payload)
    if kind == rtnetlink.RTM_NEWLINK and (family == rtnetlink.AF_BRIDGE or flags & IFF_UP):
        return
    name = shown_text(attributes(payload[HEAD.size :], (IFNAME,)).get(IFNAME, b""))
    if kind == rtnetlink.RTM_NEWLINK:
        yield Change(LINK_DOWN, index, name)
    else:
        yield Change(PORT_GONE if family == rtnetlink.AF_BRIDGE else LINK_GONE, index, name)

"""Switch lo on and off in the container's namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import addr, link
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni_loopback.plan import LINK, check_addresses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.result import IpInterface
    from cni.undo import Undo


def ensure_up(netns: str, undo: Undo) -> list[IpInterface]:
    """Switch lo on and give its addresses. Raises CniError 104 where something else uses lo."""
    with open_netns(netns) as ns, Netlink(ns) as nl:
        lo = link.get(nl, LINK)
        check_addresses(_addresses(nl, lo.index))
        if not lo.is_up:
            undo.add(f"switch {LINK} off", ensure_down, netns)
        nl.batch([link.set_flags(LINK, lo.index, on=link.IFF_UP)])
        return _addresses(nl, lo.index)


def ensure_down(netns: str) -> None:
    """Switch lo off."""
    with open_netns(netns) as ns, Netlink(ns) as nl:
        lo = link.get(nl, LINK)
        nl.batch([link.set_flags(LINK, lo.index, off=link.IFF_UP)])


def switch_on(nl: Netlink) -> None:
    """Switch lo on in the namespace that the socket is in."""
    lo = link.get(nl, LINK)
    nl.batch([link.set_flags(LINK, lo.index, on=link.IFF_UP)])


def list_differences(netns: str, wanted: Sequence[IpInterface]) -> list[str]:
    """Tell whether lo is down, and which addresses it lacks."""
    with open_netns(netns) as ns, Netlink(ns) as nl:
        lo = link.get(nl, LINK)
        present = _addresses(nl, lo.index)
    down = [] if lo.is_up else ["loopback interface is down"]
    return down + [f"loopback interface lacks {each}" for each in wanted if each not in present]


def _addresses(nl: Netlink, index: int) -> list[IpInterface]:
    return [each.address for each in addr.list_addrs(nl, index)]

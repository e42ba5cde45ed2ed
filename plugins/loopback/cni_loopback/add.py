"""ADD: switch lo on."""

from cni.kernel import addr, link
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni.request import Request
from cni.result import IpInterface, Result
from cni.undo import Undo
from cni_loopback.conf import LoopbackConf
from cni_loopback.delete import delete
from cni_loopback.plan import LINK, check_addresses, plan_result


def add(conf: LoopbackConf, request: Request, undo: Undo) -> Result:
    """Return lo with its addresses; in a chain, the result of the plugins before."""
    with open_netns(request.netns) as ns, Netlink(ns) as nl:
        index = switch_on(nl, conf, request, undo)
        return request.prev_result or plan_result(request.netns, list_addresses(nl, index))


def switch_on(nl: Netlink, conf: LoopbackConf, request: Request, undo: Undo) -> int:
    """Switch lo on and return its index. Raise CniError 104 if another program uses lo."""
    lo = link.get(nl, LINK)
    check_addresses(list_addresses(nl, lo.index))
    if not lo.is_up:
        undo.add(f"switch {LINK} off", delete, conf, request)
    nl.batch([link.set_flags(LINK, lo.index, on=link.IFF_UP)])
    return lo.index


def list_addresses(nl: Netlink, index: int) -> list[IpInterface]:
    """Return the addresses of lo."""
    return [each.address for each in addr.list_addrs(nl, index)]

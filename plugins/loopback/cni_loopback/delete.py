"""DEL: switch lo off."""

from cni.kernel import link
from cni.kernel.netns import is_gone, open_netns
from cni.kernel.rtnetlink import Netlink
from cni.request import Request
from cni_loopback.conf import LoopbackConf
from cni_loopback.plan import LINK


def delete(_conf: LoopbackConf, request: Request) -> None:
    """Switch lo off, unless its namespace is gone."""
    if is_gone(request.netns):
        return
    with open_netns(request.netns) as ns, Netlink(ns) as nl:
        lo = link.get(nl, LINK)
        nl.batch([link.set_flags(LINK, lo.index, off=link.IFF_UP)])

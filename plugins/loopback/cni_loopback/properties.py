"""The properties of lo, which CHECK compares and repair restores."""

from collections.abc import Iterator
from functools import partial

from cni.kernel import link
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni.operations.properties import Property
from cni.request import Request
from cni.undo import Undo
from cni_loopback.add import list_addresses, switch_on
from cni_loopback.conf import LoopbackConf
from cni_loopback.plan import LINK, find_wanted


def list_properties(conf: LoopbackConf, request: Request) -> Iterator[Property]:
    """Yield the state of lo and the addresses that prevResult names."""
    with open_netns(request.netns) as ns, Netlink(ns) as nl:
        lo = link.get(nl, LINK)
        yield Property(
            f"state of {LINK}",
            "up" if lo.is_up else "down",
            "up",
            "loopback interface is down",
            fix=partial(_switch_on, nl, conf, request),
            remedy=f"switch it on with: ip link set {LINK} up",
        )
        present = list_addresses(nl, lo.index)
        for each in find_wanted(request.prev_result):
            found = each if each in present else "missing"
            yield Property(f"address {each} of {LINK}", found, each, f"loopback interface lacks {each}")


def _switch_on(nl: Netlink, conf: LoopbackConf, request: Request, undo: Undo) -> str:
    switch_on(nl, conf, request, undo)
    return f"switched {LINK} on"

"""ADD: make the container's link on top of its master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import ipvlan
from cni_ipvlan.plan import choose_master

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_ipvlan.conf import IpvlanConf


def add(conf: IpvlanConf, request: Request, undo: Undo) -> Result:
    """Make the link, its addresses and routes."""
    chosen = choose_master(conf, request.prev_result)
    with open_sides(request.netns) as sides:
        master = parent.find(chosen, sides.inside if conf.link_in_container else sides.host)
        parent.check_mtu(conf.mtu, master)
        data = ipvlan.settings(conf.wanted_mode)
        spec = LinkSpec(ipvlan.KIND, data, master, conf.link_in_container, mtu=conf.mtu)
        # Behind a plugin that has given addresses, these are for the new link.
        before = request.prev_result if request.prev_result and request.prev_result.ips else None
        return single.attach(conf, request, undo, sides, spec, before)

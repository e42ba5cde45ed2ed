"""ADD: make the container's link on top of its master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import link, macvlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_macvlan.conf import MacvlanConf


def add(conf: MacvlanConf, request: Request, undo: Undo) -> Result:
    """Make the link, its addresses and routes."""
    mac = conf.mac_from(request.known_args("MAC"), conf.mac, "failed to create macvlan") or link.new_mac()
    with open_sides(request.netns) as sides:
        master = parent.find(conf, sides.inside if conf.link_in_container else sides.host)
        parent.check_mtu(conf.mtu, master)
        data = macvlan.settings(conf.wanted_mode, conf.bcqueuelen)
        spec = LinkSpec(macvlan.KIND, data, master, conf.link_in_container, mac, conf.mtu)
        return single.attach(conf, request, undo, sides, spec)

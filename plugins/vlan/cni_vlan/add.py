"""ADD: make the container's link on top of its master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import vlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_vlan.conf import VlanConf


def add(conf: VlanConf, request: Request, undo: Undo) -> Result:
    """Make the link, its addresses and routes."""
    with open_sides(request.netns) as sides:
        master = parent.find(conf, sides.inside if conf.link_in_container else sides.host)
        parent.check_mtu(conf.mtu, master)
        spec = LinkSpec(vlan.KIND, vlan.settings(conf.vlan_id), master, conf.link_in_container, mtu=conf.mtu)
        return single.attach(conf, request, undo, sides, spec)

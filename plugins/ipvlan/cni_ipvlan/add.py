"""ADD: make the container's link on top of its master."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface import parent, single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import ipvlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_ipvlan.conf import IpvlanConf


def add(conf: IpvlanConf, request: Request, undo: Undo) -> Result:
    """Make the link, its addresses and routes."""
    chosen = _choose_master(conf, request.prev_result)
    with open_sides(request.netns) as sides:
        master = parent.find(chosen, sides.inside if conf.link_in_container else sides.host)
        parent.check_mtu(conf.mtu, master)
        data = ipvlan.settings(conf.wanted_mode)
        spec = LinkSpec(ipvlan.KIND, data, master, conf.link_in_container, mtu=conf.mtu)
        # Behind a plugin that has given addresses, these are for the new link.
        before = request.prev_result if request.prev_result and request.prev_result.ips else None
        return single.attach(conf, request, undo, sides, spec, before)


def _choose_master(conf: IpvlanConf, before: Result | None) -> IpvlanConf:
    """Return the configuration with the master that the plugin before has made, if none is configured."""
    if conf.master or before is None or not before.interfaces:
        return conf
    if len(before.interfaces) != 1 or not before.interfaces[0].name:
        raise CniError(
            Code.INVALID_CONFIG,
            "chained master failure. PrevResult lacks a single named interface",
            'set "master": the plugin before this one has made several links',
        )
    return conf.model_copy(update={"master": before.interfaces[0].name})

"""ADD: put the container's interface into a VRF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import link, netns
from cni_vrf import layer3, members

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_vrf.conf import VrfConf


def add(conf: VrfConf, request: Request, undo: Undo) -> Result:
    """Make the VRF if it is missing, and the interface its member; return prevResult."""
    if request.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "missing prevResult from earlier plugin",
            "list vrf behind the plugin that makes the container's interface",
        )
    with netns.open_netns(request.netns) as ns, members.opened(ns) as nl:
        own = members.required_link(nl, request)
        if own.master:
            master = link.find_by_index(nl, own.master)
            raise CniError(
                Code.ALREADY_EXISTS,
                f"interface {own.name} has already a master set: {master.name if master else own.master}",
                "an interface has one master: remove it from that bridge or VRF first",
            )
        before = layer3.list_all(nl, own)
        undo.add(f"take {own.name} out of VRF {conf.vrfname}", members.take_out, conf, request, before)
        members.enter(nl, own, members.ensure(nl, conf), before)
    return request.prev_result

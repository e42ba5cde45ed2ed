"""DEL: take the interface out of the VRF, and remove a VRF that has no member any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import link, netns, vrf
from cni_vrf import members

if TYPE_CHECKING:
    from cni.request import Request
    from cni_vrf.conf import VrfConf


def delete(conf: VrfConf, request: Request) -> None:
    """Succeed without the interface, the VRF and the namespace, and leave the VRF of other interfaces."""
    ns = netns.find(request.netns)
    if ns is None:
        return
    with ns, members.opened(ns) as nl:
        present, own = link.find(nl, conf.vrfname), link.find(nl, request.ifname)
        if present is None or present.kind != vrf.KIND:
            return
        if own and own.master == present.index:
            nl.batch([link.set_master(own.name, own.index, 0)])
        members.remove_if_empty(nl, conf.vrfname)

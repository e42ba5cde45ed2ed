"""DEL: take the interface out of the VRF, and remove a VRF that has no member any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_vrf import members

if TYPE_CHECKING:
    from cni.request import Request
    from cni_vrf.conf import VrfConf


def delete(conf: VrfConf, request: Request) -> None:
    """Succeed without the interface, the VRF and the namespace, and leave the VRF of other interfaces."""
    members.take_out(conf, request)

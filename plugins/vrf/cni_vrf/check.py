"""CHECK: compare the VRF with what ADD makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_vrf.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_vrf.conf import VrfConf


def check(conf: VrfConf, request: Request) -> None:
    """Raise CniError 104 if the interface is not in its VRF."""
    request.required_prev_result()
    properties.check(list_properties(conf, request))

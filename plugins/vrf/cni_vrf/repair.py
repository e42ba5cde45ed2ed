"""`pycni repair`: put the interface into its VRF again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_vrf.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_vrf.conf import VrfConf


def repair(conf: VrfConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 100 if the interface is gone."""
    request.required_prev_result()
    return properties.repair(list_properties(conf, request))

"""`pycni repair`: add the rules and routes again that CHECK would miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_sbr.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_sbr.conf import SbrConf


def repair(conf: SbrConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 100 if the interface is gone."""
    request.required_prev_result()
    return properties.repair(list_properties(conf, request))

"""CHECK: compare rules and routes with what ADD makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_sbr.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_sbr.conf import SbrConf


def check(conf: SbrConf, request: Request) -> None:
    """Raise CniError 104 if a rule or a route is gone."""
    request.required_prev_result()
    properties.check(list_properties(conf, request))

"""`pycni repair`: publish the names that CHECK would miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_dnsname.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf


def repair(conf: DnsnameConf, request: Request) -> Repaired:
    """Publish the names of an attachment; start the server if it does not run."""
    return properties.repair(list_properties(conf, request))

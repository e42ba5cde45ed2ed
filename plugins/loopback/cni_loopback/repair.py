"""Repair: restore what CHECK would report."""

from cni.operations import properties
from cni.operations.repair import Repaired
from cni.request import Request
from cni_loopback.conf import LoopbackConf
from cni_loopback.properties import list_properties


def repair(conf: LoopbackConf, request: Request) -> Repaired:
    """Switch lo on again, and return what was done."""
    return properties.repair(list_properties(conf, request))

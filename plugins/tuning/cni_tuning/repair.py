"""Repair: set again what something has changed since ADD."""

from cni.operations import properties
from cni.operations.repair import Repaired
from cni.request import Request
from cni_tuning.conf import TuningConf
from cni_tuning.properties import list_properties


def repair(conf: TuningConf, request: Request) -> Repaired:
    """Set what CHECK would report, and return what was done."""
    return properties.repair(list_properties(conf, request))

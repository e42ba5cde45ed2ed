"""Repair: set again the limits that something has changed since ADD."""

from cni.operations import properties
from cni.operations.repair import Repaired
from cni.request import Request
from cni_bandwidth.conf import BandwidthConf
from cni_bandwidth.properties import list_properties


def repair(conf: BandwidthConf, request: Request) -> Repaired:
    """Set what CHECK would report, and return what was done."""
    return properties.repair(list_properties(conf, request))

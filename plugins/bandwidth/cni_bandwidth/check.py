"""CHECK: compare the limits with the configuration."""

from cni.operations import properties
from cni.request import Request
from cni_bandwidth.conf import BandwidthConf
from cni_bandwidth.properties import list_properties


def check(conf: BandwidthConf, request: Request) -> None:
    """Raise CniError 104 if a limit is not as ADD has set it."""
    properties.check(list_properties(conf, request))

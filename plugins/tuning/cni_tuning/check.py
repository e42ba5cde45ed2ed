"""CHECK: compare attributes and sysctls with the configuration."""

from cni.operations import properties
from cni.request import Request
from cni_tuning.conf import TuningConf
from cni_tuning.properties import list_properties


def check(conf: TuningConf, request: Request) -> None:
    """Raise CniError 104 if something is not as ADD has set it."""
    properties.check(list_properties(conf, request))

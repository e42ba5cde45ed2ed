"""CHECK: compare lo with prevResult."""

from cni.operations import properties
from cni.request import Request
from cni_loopback.conf import LoopbackConf
from cni_loopback.properties import list_properties


def check(conf: LoopbackConf, request: Request) -> None:
    """Raise CniError 104 unless lo is up and has the addresses of prevResult."""
    properties.check(list_properties(conf, request))

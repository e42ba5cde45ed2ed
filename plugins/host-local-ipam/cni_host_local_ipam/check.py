"""CHECK: compare the leases with prevResult."""

from cni.operations import properties
from cni.request import Request
from cni_host_local_ipam.conf import HostLocalConf
from cni_host_local_ipam.plan import read_args
from cni_host_local_ipam.properties import list_properties


def check(conf: HostLocalConf, request: Request) -> None:
    """Raise CniError 104 unless the attachment holds an address, and all those of prevResult."""
    read_args(request)
    properties.check(list_properties(conf, request), prefix="host-local: ")

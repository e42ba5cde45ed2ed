"""Repair: take the addresses of an attachment again whose leases are gone."""

from cni.operations import properties
from cni.operations.repair import Repaired
from cni.request import Request
from cni_host_local_ipam.conf import HostLocalConf
from cni_host_local_ipam.properties import list_properties


def repair(conf: HostLocalConf, request: Request) -> Repaired:
    """Return what was done; an address that another attachment holds is an error in it."""
    return properties.repair(list_properties(conf, request))

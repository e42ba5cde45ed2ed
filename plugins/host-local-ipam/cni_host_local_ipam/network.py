"""The "ipam" object in lists of `pycni network create`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import Part

if TYPE_CHECKING:
    from cni.operations.network_part import Subnet, Wanted


def _ipam(wanted: Wanted) -> dict[str, Any]:
    return {"type": "host-local", "ranges": [[_range(each)] for each in wanted.subnets]}


def _range(subnet: Subnet) -> dict[str, str]:
    limits = {"rangeStart": str(subnet.first), "rangeEnd": str(subnet.last)} if subnet.pool else {}
    gateway = {"gateway": str(subnet.gateway)} if subnet.gateway else {}
    return {"subnet": str(subnet.network), **limits, **gateway}


PART = Part(ipam=_ipam)

"""`pycni repair`: restore what CHECK would report. The rest is not touched, so that connections survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.compare import open_attachment, repair_all
from cni.interface.plan import plan_pair
from cni_host_device.properties import list_properties, require

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_host_device.conf import HostDeviceConf


def repair(conf: HostDeviceConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 104 if its device is gone: only an ADD brings it."""
    with open_attachment(request, plan_pair(conf, request)) as attachment:
        require(attachment)
        return repair_all(conf, request, list_properties(conf, attachment))

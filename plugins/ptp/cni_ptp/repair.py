"""`pycni repair`: restore what CHECK would report. The rest is not touched, so that connections survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.compare import open_attachment, repair_all
from cni.interface.plan import plan_pair
from cni_ptp.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_ptp.conf import PtpConf


def repair(conf: PtpConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 104 if its veth pair is gone: only an ADD creates it."""
    with open_attachment(request, plan_pair(conf, request, conf.mtu)) as attachment:
        attachment.require_pair()
        return repair_all(conf, request, list_properties(conf, attachment))

"""`pycni repair`: restore what CHECK would report. The rest is not touched, so that connections survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.compare import open_attachment, repair_all
from cni_bridge.plan import plan_links
from cni_bridge.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_bridge.conf import BridgeConf


def repair(conf: BridgeConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 104 if its veth pair is gone: only an ADD creates it."""
    plan = plan_links(conf, request)
    with open_attachment(request, plan.pair) as attachment:
        attachment.require_pair()
        return repair_all(conf, request, list_properties(conf, plan, attachment))

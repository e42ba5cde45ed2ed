"""`pycni repair`: restore what CHECK would report. The rest is not touched, so that connections survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.interface.compare import open_attachment, repair_all
from cni.interface.plan import plan_pair
from cni.kernel import tap
from cni_tap.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_tap.conf import TapConf


def repair(conf: TapConf, request: Request) -> Repaired:
    """Repair an attachment. Raise CniError 104 if its link is gone: only an ADD creates it."""
    with open_attachment(request, plan_pair(conf, request)) as attachment:
        single.require(attachment, tap.KIND)
        return repair_all(conf, request, list_properties(conf, attachment))

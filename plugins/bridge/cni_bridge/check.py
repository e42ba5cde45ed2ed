"""CHECK: compare the attachment with its configuration and the result of ADD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.compare import check_all, open_attachment
from cni_bridge.plan import plan_links
from cni_bridge.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_bridge.conf import BridgeConf


def check(conf: BridgeConf, request: Request) -> None:
    """Raise CniError 104 if the attachment is not as ADD made it."""
    plan = plan_links(conf, request)
    with open_attachment(request, plan.pair) as attachment:
        check_all(conf, request, list_properties(conf, plan, attachment))

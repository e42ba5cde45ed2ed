"""CHECK: compare the attachment with its configuration and the result of ADD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface.compare import check_all, open_attachment
from cni.interface.plan import plan_pair
from cni_tap.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_tap.conf import TapConf


def check(conf: TapConf, request: Request) -> None:
    """Raise CniError 104 if the attachment is not as ADD made it."""
    with open_attachment(request, plan_pair(conf, request)) as attachment:
        check_all(conf, request, list_properties(conf, attachment))

"""DEL: withdraw the names of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_dnsname import publish
from cni_dnsname.plan import plan_key

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf


def delete(conf: DnsnameConf, request: Request) -> None:
    """Withdraw the names; succeed without them, without prevResult, and without the namespace."""
    publish.withdraw(plan_key(conf, request))

"""DEL: withdraw the names of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_dnsname import dnsmasq, publish
from cni_dnsname.plan import plan_key, pod_name

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf


def delete(conf: DnsnameConf, request: Request) -> None:
    """Withdraw the names; succeed without them, without prevResult, and without the namespace."""
    key = plan_key(conf, request)
    is_ours = publish.withdraw(key)
    folder = dnsmasq.find_folder(conf, request)
    if folder and not is_ours and (name := pod_name(request)):
        dnsmasq.withdraw(folder, conf, request, name)
        publish.look()

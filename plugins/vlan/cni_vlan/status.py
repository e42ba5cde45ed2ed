"""STATUS: can an ADD succeed now, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.kernel import vlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni_vlan.conf import VlanConf


def status(conf: VlanConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    data = vlan.settings(conf.vlan_id)
    parent.report(conf, request, partial(single.try_create, vlan.KIND, data))

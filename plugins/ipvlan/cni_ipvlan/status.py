"""STATUS: can an ADD succeed now, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.kernel import ipvlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni_ipvlan.conf import IpvlanConf


def status(conf: IpvlanConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    data = ipvlan.settings(conf.wanted_mode)
    parent.report(conf, request, partial(single.try_create, ipvlan.KIND, data))

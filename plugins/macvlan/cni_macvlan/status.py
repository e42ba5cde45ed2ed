"""STATUS: can an ADD succeed now, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.kernel import macvlan

if TYPE_CHECKING:
    from cni.request import Request
    from cni_macvlan.conf import MacvlanConf


def status(conf: MacvlanConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    data = macvlan.settings(conf.wanted_mode, conf.bcqueuelen)
    parent.report(conf, request, partial(single.try_create, macvlan.KIND, data))

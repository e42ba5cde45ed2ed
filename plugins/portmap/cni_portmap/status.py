"""STATUS: whether an ADD could publish ports now, and whether published ports still work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import installed, probe, stores
from cni.firewall.intents import FORWARD
from cni.hostports import ledger
from cni.operations.status import Reasons
from cni_portmap.plan import PURPOSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.status import Impairment
    from cni.request import Request
    from cni_portmap.conf import PortmapConf


def status(conf: PortmapConf, _request: Request) -> None:
    """Raise CniError 50 if ports cannot be published, 51 if published ports do not work."""
    reasons = Reasons()
    reasons.attempt(probe.require_working, conf.needed_backend, PURPOSE)
    reasons.attempt(_check_stores, conf)
    reasons.attempt(reasons.limit, partial(_list_impairments, conf.name))
    reasons.raise_any()


def _check_stores(conf: PortmapConf) -> None:
    ledger.check_writable()
    stores.check(conf.needed_backend, PURPOSE)


def _list_impairments(network: str) -> Iterator[Impairment]:
    owners = [owner for owner in ledger.list_live(network) if ledger.list_held(owner)]
    for each in installed.without(owners, FORWARD):
        yield "published ports lead nowhere of", f"{each.container_id} {each.ifname}"

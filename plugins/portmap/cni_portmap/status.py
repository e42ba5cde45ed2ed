"""STATUS: whether ports could be published now, and those that are published still lead somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import claims
from cni.firewall import presence, tryout
from cni.readiness import Reasons, some
from cni_portmap.apply import WHAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_portmap.conf import PortmapConf


def status(conf: PortmapConf) -> None:
    """Raise CniError 50 or 51 with every reason."""
    reasons = Reasons()
    reasons.attempt(tryout.try_out, conf.needed_backend, WHAT)
    reasons.attempt(claims.check_writable)
    reasons.attempt(lambda: reasons.limit(*_list_impairments(conf.name)))
    reasons.raise_any()


def _list_impairments(network: str) -> Iterator[str]:
    owners = [owner for owner in claims.list_live(network) if claims.list_held(owner)]
    lost = [f"{each.container_id} {each.ifname}" for each in presence.without_forward(owners)]
    if lost:
        yield f"published ports lead nowhere of: {some(lost)}"

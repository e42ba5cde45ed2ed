"""DEL: remove what remains of the attachment. A failing step does not stop the others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import spoofcheck
from cni.interface import masquerade
from cni.interface.plan import owner_of
from cni.interface.removal import detach

if TYPE_CHECKING:
    from cni.request import Request
    from cni_bridge.conf import BridgeConf


def delete(conf: BridgeConf, request: Request) -> None:
    """Remove the pair, the leases and the rules of the attachment."""
    spoof_check = [partial(spoofcheck.remove, owner_of(conf, request))] if conf.macspoofchk else []
    detach(conf, request, *spoof_check, partial(masquerade.remove, conf, request))

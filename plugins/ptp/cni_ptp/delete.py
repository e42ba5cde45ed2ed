"""DEL: remove what remains of the attachment. A failing step does not stop the others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import masquerade
from cni.interface.removal import detach

if TYPE_CHECKING:
    from cni.request import Request
    from cni_ptp.conf import PtpConf


def delete(conf: PtpConf, request: Request) -> None:
    """Remove the pair, the leases and the rules of the attachment."""
    detach(conf, request, partial(masquerade.remove, conf, request))

"""DEL: remove the ifb. The limit of what the container receives goes with the host end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import link_removal
from cni_bandwidth.add import remove_ifb

if TYPE_CHECKING:
    from cni.request import Request
    from cni_bandwidth.conf import BandwidthConf


def delete(conf: BandwidthConf, request: Request) -> None:
    """Remove the ifb; its names follow from network, container ID and ifname."""
    remove_ifb(conf, request, early=link_removal.is_early(request.env))

"""The bridge in the container that the device becomes a port of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import bridge, link

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni_tap.conf import TapConf


def find(conf: TapConf, inside: Netlink) -> Link:
    """Return the bridge. Raise CniError 100 without it, 7 if the link is no bridge."""
    present = link.find(inside, conf.bridge)
    if present is None:
        raise CniError(
            Code.KERNEL,
            f'failed to lookup bridge "{conf.bridge}": Link not found',
            'set "bridge" to a bridge in the container, which an earlier attachment or the runtime makes',
        )
    if present.kind != bridge.KIND:
        raise CniError(
            Code.INVALID_CONFIG, f'"{conf.bridge}" in the container already exists but is not a bridge'
        )
    return present

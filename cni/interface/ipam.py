"""IPAM as part of an ADD: lease with undo, and the DNS settings of the result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni import delegate

if TYPE_CHECKING:
    from cni.conf import NetConf
    from cni.request import Request
    from cni.result import Dns, Result
    from cni.undo import Undo

_HELPERS = "/run/pycni/helpers"


def lease(conf: NetConf, request: Request, undo: Undo) -> Result:
    """Let the IPAM plugin ADD; a failing ADD releases the addresses again."""
    refusals: list[delegate.NothingDoneError] = []
    # Before the call: a call that is cut short may have leased an address.
    undo.add(f"release what {conf.ipam.type} gave", _release, conf, request, refusals)
    try:
        return delegate.add(conf.ipam.type, request)
    except delegate.NothingDoneError as error:
        refusals.append(error)
        raise


def _release(conf: NetConf, request: Request, refusals: list[delegate.NothingDoneError]) -> None:
    # An ADD that IPAM refuses has leased nothing: a DEL would release the addresses of an earlier attachment.
    if not refusals:
        delegate.delete(conf.ipam.type, request)


def release_through_link(conf: NetConf, request: Request) -> None:
    """Let an IPAM plugin release addresses first if it needs the container's link for that. Raise CniError.

    Such a plugin has a helper, and a record of the attachment. Others release when the link is gone, because
    the next container may get the address at once.
    """
    # Only a host with such a plugin pays for the look-up.
    if not conf.ipam.type or not os.path.isdir(_HELPERS):  # noqa: PTH112 - on the path of every DEL
        return
    from cni.state import attachments  # As above.

    key = attachments.Key(conf.ipam.type, conf.name, request.container_id, request.ifname)
    if attachments.load(key) is not None:
        delegate.delete(conf.ipam.type, request)


def dns(conf: NetConf, leased: Result | None) -> Dns:
    """Return the DNS settings of a result: those of the configuration replace those of IPAM."""
    return conf.dns.to_dns() if leased is None or conf.dns.is_given() else leased.dns

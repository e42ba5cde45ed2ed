"""IPAM as part of an ADD: lease with undo, and the DNS settings of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import delegate

if TYPE_CHECKING:
    from cni.conf import NetConf
    from cni.request import Request
    from cni.result import Dns, Result
    from cni.undo import Undo


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


def dns(conf: NetConf, leased: Result | None) -> Dns:
    """Return the DNS settings of a result: those of the configuration replace those of IPAM."""
    return conf.dns.to_dns() if leased is None or conf.dns.is_given() else leased.dns

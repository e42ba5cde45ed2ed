"""ADD: limit what the container receives and sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface.pair import open_sides
from cni.interface.plan import owner_of
from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.result import Interface
from cni_bandwidth import ifbs, shapes
from cni_bandwidth.ends import required_host_end
from cni_bandwidth.plan import mark, plan_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.link import Link
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_bandwidth.conf import BandwidthConf
    from cni_bandwidth.plan import Shape


def add(conf: BandwidthConf, request: Request, undo: Undo) -> Result:
    """Limit both directions, and return prevResult with the ifb, as the Go plugin does."""
    if request.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "must be called as chained plugin",
            "List bandwidth behind the plugin that makes the container's interface.",
        )
    result = request.prev_result
    plan = plan_limits(conf)
    if plan.ingress is None and plan.egress is None:
        return result
    with open_sides(request.netns) as sides:
        end = required_host_end(sides, result, owner_of(conf, request))
        if plan.ingress:
            _log_small("ingressBurst", plan.ingress, end)
            undo.add(f"remove the limit of {end.name}", _undo, end, shapes.remove_limit)
            shapes.limit(sides.host, end, plan.ingress)
        if plan.egress is None:
            return result
        _log_small("egressBurst", plan.egress, end)
        made = limit_egress(sides.host, conf, request, plan.egress, end, undo)
    return result._replace(interfaces=(*result.interfaces, Interface(made.name, made.mac)))


def limit_egress(  # noqa: PLR0913, PLR0917 - whose limit, which limit, and where
    nl: Netlink, conf: BandwidthConf, request: Request, shape: Shape, end: Link, undo: Undo
) -> Link:
    """Create the ifb with its limit, then redirect what the container sends to it; return the ifb."""
    owner = owner_of(conf, request)
    undo.add(f"remove the ifb of {end.name}", remove_ifb, conf, request)
    ifbs.remove(nl, conf, owner, request)
    made = ifbs.create(nl, owner, mark(conf, request), end.mtu)
    shapes.limit(nl, made, shape)
    nl.batch([link.set_flags(made.name, made.index, on=link.IFF_UP)])
    undo.add(f"remove the redirection of {end.name}", _undo, end, ifbs.remove_redirection)
    ifbs.redirect(nl, end, made)
    return made


def remove_ifb(conf: BandwidthConf, request: Request, *, early: bool = False) -> None:
    """Remove the ifb of an attachment; succeed if there is none. `early` is as in `ifbs.remove`."""
    with Netlink() as nl:
        ifbs.remove(nl, conf, owner_of(conf, request), request, early=early)


def _undo(end: Link, remove: Callable[[Netlink, Link], object]) -> None:
    """Remove something of the very link, not of another one with its index."""
    with Netlink() as nl:
        now = link.find_by_index(nl, end.index)
        if now and now.mac == end.mac:
            remove(nl, now)


def _log_small(key: str, shape: Shape, end: Link) -> None:
    """Log a burst that has no room for a packet: the kernel drops such packets."""
    if shape.burst < end.mtu:
        note(
            f"bandwidth: {key} is less than a packet of {end.mtu} bytes: larger packets than "
            f"{shape.burst} bytes are dropped"
        )

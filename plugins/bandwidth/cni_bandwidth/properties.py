"""The limits of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface import compare
from cni.interface.pair import open_sides
from cni.interface.plan import owner_of
from cni.kernel import link
from cni.operations.properties import Property
from cni_bandwidth import ifbs, shapes
from cni_bandwidth.add import limit_egress
from cni_bandwidth.ends import find_host_end
from cni_bandwidth.plan import mark, plan_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.operations.properties import Fix
    from cni.request import Request
    from cni.undo import Undo
    from cni_bandwidth.conf import BandwidthConf
    from cni_bandwidth.plan import Shape


def list_properties(conf: BandwidthConf, request: Request) -> Iterator[Property]:
    """Yield the limits of both directions. Messages begin with those of the Go plugin."""
    if request.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "must be called as a chained plugin", "CHECK needs prevResult.")
    plan = plan_limits(conf)
    if plan.ingress is None and plan.egress is None:
        return
    owner = owner_of(conf, request)
    with open_sides(request.netns) as sides:
        end = find_host_end(sides, request.prev_result, owner)
        yield compare.holds(end is not None, "no veth peer of container interface found in host ns")
        if end is None:
            return
        nl = sides.host
        if plan.ingress:
            yield _of_limit(nl, end, plan.ingress, partial(_limit, nl, end, plan.ingress))
        if plan.egress:
            fix = partial(_limit_egress, nl, conf, request, plan.egress, end)
            found = ifbs.find(nl, owner, mark(conf, request), request.prev_result)
            yield compare.holds(found is not None, "get ifb device: Link not found", fix)
            if found:
                yield _of_limit(nl, found, plan.egress, partial(_limit, nl, found, plan.egress))
                yield compare.of_state(nl, found, f"Interface {found.name} is down")
                message = f"what {end.name} receives is not redirected to {found.name}"
                again = partial(_redirect, nl, end, found)
                yield compare.holds(ifbs.is_redirected(nl, end, found), message, again)


def _of_limit(nl: Netlink, holder: Link, shape: Shape, fix: Fix) -> Property:
    text = shapes.differences(nl, holder, shape)
    return Property(f"limit of {holder.name}", text, "", f"{text}: the limit of {holder.name}", fix)


def _limit(nl: Netlink, holder: Link, shape: Shape, _undo: Undo) -> str:
    shapes.limit(nl, holder, shape)
    return f"{holder.name}: limited what it sends"


def _limit_egress(  # noqa: PLR0913, PLR0917 - as `limit_egress`
    nl: Netlink, conf: BandwidthConf, request: Request, shape: Shape, end: Link, undo: Undo
) -> str:
    made = limit_egress(nl, conf, request, shape, end, undo)
    return f"{end.name}: redirected what it receives to {made.name}, and limited that"


def _redirect(nl: Netlink, end: Link, target: Link, _undo: Undo) -> str:
    now = link.find_by_index(nl, target.index)
    ifbs.redirect(nl, end, now or target)
    return f"{end.name}: redirected what it receives to {target.name}"

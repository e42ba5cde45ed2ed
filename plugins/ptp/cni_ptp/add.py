"""ADD: connect the container to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import default_route, ipam, layer3, masquerade, pair
from cni.interface.plan import plan_masquerade, plan_pair, ranked, required_ips, versions_of
from cni.kernel import link
from cni.result import Result
from cni_ptp.plan import CONTAINER_INDEX, plan_ends

if TYPE_CHECKING:
    from cni.request import Request
    from cni.undo import Undo
    from cni_ptp.conf import PtpConf


def add(conf: PtpConf, request: Request, undo: Undo) -> Result:
    """Make the pair, the addresses and routes of both ends, and the rules."""
    plan = plan_pair(conf, request, conf.mtu)
    backend = masquerade.choose(conf)
    with pair.open_sides(plan.netns) as sides:
        with pair.pairs_locked():
            made, _ = pair.claim(plan, pair.create(plan, sides, undo), sides)
        host, container = made
        leased = ipam.lease(conf, request, undo)
        ips = required_ips(leased, conf.ipam.type, CONTAINER_INDEX, with_gateways=True)
        routes = ranked(leased.routes, default_route.rank(conf, sides, container, undo))
        ends = plan_ends(ips, routes)
        pair.refuse_routers(host.name)
        pair.skip_duplicate_check(host.name)
        layer3.configure(ends.container, sides, container)
        up = link.set_flags(host.name, host.index, on=link.IFF_UP)
        layer3.add(ends.host, sides.host, host, (), up)
        layer3.forward(versions_of(ips))
        if backend and (intent := plan_masquerade(conf, plan.owner, ips)):
            masquerade.apply(backend, intent, undo)
        pair.wait_until_up(sides.host, host.name, "host end")
    return Result(tuple(made.interfaces(plan)), ips, routes, ipam.dns(conf, leased))

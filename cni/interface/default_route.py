"""Which of a container's networks has the default route: `gatewayPriority`.

A default route of a network with a priority gets a metric: the higher the priority, the lower the metric. So
the order of ADDs does not matter, and when the link of one network is removed, the kernel uses the next one.
Default routes without a metric count as those of priority 0: they get its metric as soon as another network
of the container has a priority.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import stops
from cni.errors import KernelError
from cni.interface.plan import RANKED, metrics_of
from cni.kernel import netns, route
from cni.kernel.rtnetlink import Netlink
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cni.interface.conf import InterfaceConf
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.kernel.route import Default
    from cni.undo import Undo

# The index of the first link of a new namespace.
_FIRST_LINK = 2


def rank(conf: InterfaceConf, sides: Sides, own: Link, undo: Undo) -> Mapping[int, int]:
    """Return the metrics for the attachment's default routes, by IP version; {} to leave them without one.

    With a priority, give the metric of priority 0 to the container's default routes that have none.
    """
    priority = conf.attachment_priority
    # No other link can have a priority then.
    if priority is None and own.index == _FIRST_LINK:
        return {}
    if priority is None and not any(
        route.find_default_metric(sides.inside, each) in RANKED for each in (4, 6)
    ):
        return {}
    present = route.list_defaults(sides.inside)
    taken = [(each.version, each.metric) for each in present]
    for each in present if priority is not None else ():
        if each.is_unranked:
            metric = _free_metric(0, each.version, taken)
            taken.append((each.version, metric))
            _change(each, metric, sides, undo)
    return {version: _free_metric(priority or 0, version, taken) for version in (4, 6)}


def _change(default: Default, metric: int, sides: Sides, undo: Undo) -> None:
    undo.add("give a default route its metric back", _give_back, sides.ns.path, default, metric)
    # Between its two steps the container has the route twice.
    stops.hold()
    try:
        route.change_metric(sides.inside, default, metric)
    except KernelError as error:
        # The container may have routes that only its own programs understand.
        note(f"pycni: {error}")
    finally:
        stops.release()


def _give_back(path: str, default: Default, metric: int) -> None:
    if netns.is_gone(path):
        return
    with netns.open_netns(path) as ns, Netlink(ns) as nl:
        present = route.list_defaults(nl)
        # The kernel refused the change: a route that has the metric is the container's own.
        if default in present:
            return
        for each in present:
            if each.version == default.version and each.metric == metric:
                route.change_metric(nl, each, default.metric)


def _free_metric(priority: int, version: int, taken: Collection[tuple[int, int]]) -> int:
    metrics = metrics_of(priority)
    # More networks than there are metrics share the last one.
    return next((each for each in metrics if (version, each) not in taken), metrics[-1])

"""STATUS: can an ADD succeed now, and do attached containers have their traffic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.firewall import stores
from cni.interface import compare, pair
from cni.interface import status as shared
from cni.kernel import link, route
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.operations.status import Impairment
    from cni.request import Request
    from cni_ptp.conf import PtpConf


def status(conf: PtpConf, request: Request) -> None:
    """Raise CniError 50 or 51 with every reason."""
    ipam = partial(delegate.find, conf.ipam.type, request.path)
    steps: list[Callable[[], object]] = [
        partial(shared.try_pair, conf.mtu),
        partial(stores.check_lock, pair.LOCK),
        ipam,
    ]
    look = partial(_list_impairments, conf)
    shared.report(conf, request, [*steps, *shared.masquerade_steps(conf)], look)


def _list_impairments(conf: PtpConf) -> Iterator[Impairment]:
    """Yield what keeps attached containers from their traffic."""
    versions: set[int] = set()
    with Netlink() as nl:
        ends = shared.list_ends(conf.name, link.list_links(nl))
        for end in ends:
            gateways = {each.ip for each in shared.list_own_addresses(nl, end.name)}
            routes = [each.dst for each in route.list_routes(nl, end.index)]
            led_to = {each.version for each in routes if each.num_addresses == 1 and each[0] not in gateways}
            wanted = {each.version for each in gateways}
            lost = "links of containers have lost the gateway's addresses"
            ways = "routes to containers are gone"
            yield from shared.impairing([
                compare.of_host_state(nl, end),
                compare.holds(gateways, impairment=lost, name=end.name),
                compare.holds(wanted <= led_to, impairment=ways, name=end.name),
            ])  # fmt: skip
            versions |= wanted
        yield from shared.impairing(compare.of_forwarding(versions))
    yield from shared.without_masquerade(conf, ends, versions)

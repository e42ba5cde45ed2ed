"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import compare, rules
from cni.interface.plan import plan_masquerade, versions_of
from cni.kernel import link, veth
from cni_ptp.plan import plan_ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.operations.properties import Property
    from cni_ptp.conf import PtpConf


def list_properties(conf: PtpConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""
    container, host = of.find_pair()
    yield from compare.of_container(of, container)
    if container is None or container.kind != veth.KIND:
        return
    yield from compare.of_host_end(of, container, host)
    ends = plan_ends(of.ips, ())
    if host is not None:
        no_port = link.set_master(host.name, host.index, 0)
        fix = compare.send(of.sides.host, f"{host.name}: removed it from its bridge", no_port)
        yield compare.holds(not host.master, f"Interface {host.name} is a port of a bridge", fix)
        yield compare.of_host_state(of.sides.host, host)
        yield from compare.of_traffic(host, container)
        yield from compare.of_host_layer3(of, ends.host, host)
    routes = compare.promised_routes(conf, of.result)
    is_ours = host is not None and host.name == of.plan.host_name
    yield from compare.of_layer3(of, ends.container, routes, container, compare_metrics=is_ours)
    yield from compare.of_forwarding(versions_of(of.ips))
    if masquerade := plan_masquerade(conf, of.plan.owner, of.ips):
        yield from rules.of_masquerade(conf, masquerade)

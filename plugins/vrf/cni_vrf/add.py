"""ADD: put the container's interface into a VRF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import addr, link, netns, route, vrf
from cni_vrf import members

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_vrf.conf import VrfConf

# RTPROT_KERNEL, rtnetlink(7): routes that come with addresses by themselves.
_BY_KERNEL = 2


def add(conf: VrfConf, request: Request, undo: Undo) -> Result:
    """Make the VRF if it is missing, and the interface its member; return prevResult."""
    if request.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "missing prevResult from earlier plugin",
            "list vrf behind the plugin that makes the container's interface",
        )
    with netns.open_netns(request.netns) as ns, members.opened(ns) as nl:
        own = members.required_link(nl, request)
        if own.master:
            master = link.find_by_index(nl, own.master)
            raise CniError(
                Code.ALREADY_EXISTS,
                f"interface {own.name} has already a master set: {master.name if master else own.master}",
                "an interface has one master: remove it from that bridge or VRF first",
            )
        undo.add(f"take {own.name} out of VRF {conf.vrfname}", members.take_out, conf, request)
        enter(nl, own, members.ensure(nl, conf))
    return request.prev_result


def enter(nl: Netlink, own: Link, member_of: Link) -> None:
    """Make a link a member. The kernel then drops its global IPv6 addresses and its routes: restore them."""
    addresses = [each for each in addr.list_addrs(nl, own.index, 6) if each.is_global]
    routes = [
        each
        for each in route.list_all(nl, own.index)
        if each.route.table == route.MAIN_TABLE and each.protocol != _BY_KERNEL
    ]
    nl.batch([link.set_master(own.name, own.index, member_of.index)])
    for each in addresses:
        # They were checked for duplicates before.
        addr.ensure(nl, own.name, own.index, each.address, dad=False)
    table = vrf.describe(member_of)
    for one in sorted(routes, key=lambda each: each.route.gw is not None):
        moved = one.route._replace(table=table)
        route.ensure(nl, own.name, own.index, moved, src=one.src)

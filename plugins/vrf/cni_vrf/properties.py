"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.kernel import netns, vrf
from cni.kernel.rtnetlink import Netlink
from cni.operations.properties import Property
from cni_vrf import layer3, members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.request import Request
    from cni.undo import Undo
    from cni_vrf.conf import VrfConf


def list_properties(conf: VrfConf, request: Request) -> Iterator[Property]:
    """Yield membership, table and state; the first one's fix restores all."""
    with netns.open_netns(request.netns) as ns, Netlink(ns) as nl:
        own, present = members.required_link(nl, request), members.find(nl, conf.vrfname)
    message = f"Interface {own.name} is not part of VRF {conf.vrfname}"
    fix = partial(_restore, conf, request)
    is_member = present is not None and own.master == present.index
    yield Property("", is_member, wanted=True, message=message, fix=fix)
    if present is None:
        return
    table = vrf.describe(present)
    message = f"VRF {conf.vrfname} has routing table {table}, not {conf.table}"
    yield Property("", table, conf.table or table, message)
    yield Property("", present.is_up, wanted=True, message=f"VRF {conf.vrfname} is down", fix=fix)


def _restore(conf: VrfConf, request: Request, _undo: Undo) -> str:
    with netns.open_netns(request.netns) as ns, members.opened(ns) as nl:
        own = members.required_link(nl, request)
        present = members.ensure(nl, conf)
        if own.master != present.index:
            members.enter(nl, own, present, layer3.list_all(nl, own))
    return f"made {own.name} part of VRF {conf.vrfname}, which is up"

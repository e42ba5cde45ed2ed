"""The link below the container's link: a VLAN, macvlan or ipvlan link needs one, its master."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import CniError, Code
from cni.kernel import link, netns, nsid, route
from cni.kernel.rtnetlink import Netlink
from cni.operations.properties import Property
from cni.state import attachments, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.interface.conf import ParentConf
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.operations.status import Impairment
    from cni.request import Request

_LISTED = 8


def find(conf: ParentConf, nl: Netlink) -> Link:
    """Return the master, which `nl` looks up in the namespace that it is in. Raise CniError 100 or 7."""
    name = conf.master
    if name:
        if parent := link.find(nl, name):
            return parent
        raise CniError(
            Code.KERNEL,
            f'failed to lookup master "{name}": Link not found',
            f'set "master" to a link of {_place(conf)}: {_list_names(nl)}',
        )
    index = route.find_default_link_index(nl)
    parent = link.find_by_index(nl, index) if index else None
    if parent is None:
        raise CniError(
            Code.KERNEL,
            "no default route interface found",
            f'set "master" to a link of {_place(conf)}: {_list_names(nl)}',
        )
    return parent


def check_mtu(mtu: int, parent: Link) -> None:
    """Raise CniError 7 for an MTU that is larger than the master's."""
    if mtu > parent.mtu:
        raise CniError(
            Code.INVALID_CONFIG,
            f"invalid MTU {mtu}, must be [0, master MTU({parent.mtu})]",
            f'set "mtu" to at most {parent.mtu}, or raise the MTU of {parent.name}',
        )


def of_parent(conf: ParentConf, sides: Sides, own: Link) -> Property:
    """Return the property that the container's link is on its master. Raise CniError 100 or 7 without one.

    The index of the link below proves nothing without the namespace that the index is of.
    """
    inside = conf.link_in_container
    parent = find(conf, sides.inside if inside else sides.host)
    message = f"Interface {own.name} is not on master {parent.name} of {_place(conf)}"
    if inside:
        return Property("", (own.parent, own.netnsid), (parent.index, None), message)
    with netns.own() as host:
        return Property("", (own.parent, own.netnsid), (parent.index, nsid.get(sides.inside, host)), message)


def report(conf: ParentConf, request: Request, try_link: Callable[[], object]) -> None:
    """Raise CniError 50 or 51 with every reason: STATUS of a plugin whose links need a master.

    `try_link` raises CniError if the kernel cannot create such a link. A master in the container is not
    looked for: STATUS is about no container.
    """
    # Only STATUS needs it, and it imports the firewall's modules.
    from cni.interface import status

    steps: list[Callable[[], object]] = [try_link, partial(files.check_writable, attachments.FOLDER)]
    if not conf.link_in_container:
        steps.append(partial(_try_master, conf))
    if conf.ipam.type:
        steps.append(partial(delegate.find, conf.ipam.type, request.path))
    status.report(conf, request, steps, partial(_list_impairments, conf))


def _try_master(conf: ParentConf) -> None:
    with Netlink() as nl:
        check_mtu(conf.mtu, find(conf, nl))


def _list_impairments(conf: ParentConf) -> Iterator[Impairment]:
    """Yield what keeps attached containers from their traffic: a master that is gone or down."""
    if conf.link_in_container or not conf.master or not attachments.list_stale(conf.plugin, conf.name, ()):
        return
    with Netlink() as nl:
        parent = link.find(nl, conf.master)
    if parent is None:
        yield "the master of attached containers is gone", conf.master
    elif not parent.is_up:
        yield "the master of attached containers is down", conf.master


def _place(conf: ParentConf) -> str:
    return "the container" if conf.link_in_container else "the host"


def _list_names(nl: Netlink) -> str:
    names = [each.name for each in link.list_links(nl) if not each.flags & link.IFF_LOOPBACK]
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "") or "it has none"

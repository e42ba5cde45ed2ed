"""The addresses and routes of an interface, most of which the kernel drops when its VRF changes."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from cni.kernel import addr, link, route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.errors import KernelError
    from cni.kernel.addr import Addr
    from cni.kernel.link import Link
    from cni.kernel.route import KernelRoute
    from cni.kernel.rtnetlink import Message, Netlink

# RTPROT_KERNEL, rtnetlink(7): routes that come with addresses by themselves.
_BY_KERNEL = 2


class Layer3(NamedTuple):
    """Global IPv6 addresses, and the routes that do not come with addresses."""

    addresses: list[Addr]
    routes: list[KernelRoute]


def list_all(nl: Netlink, own: Link, table: int = route.MAIN_TABLE) -> Layer3:
    """List what an interface has, with its routes of a table."""
    addresses = [each for each in addr.list_addrs(nl, own.index, 6) if each.is_global]
    routes = [
        each
        for each in route.list_all(nl, own.index)
        if each.route.table == table and each.protocol != _BY_KERNEL and each.encoded
    ]
    return Layer3(addresses, sorted(routes, key=lambda each: each.route.gw is not None))


def restore(nl: Netlink, own: Link, lost: Layer3, table: int) -> list[KernelError]:
    """Add what the kernel has dropped, the routes into a table; return the kernel's refusals."""
    again = _again(own, lost, table)
    return _refusals(nl.attempt(again)) if again else []


def leave(nl: Netlink, own: Link, lost: Layer3) -> list[KernelError]:
    """Take an interface out of its VRF, and add what the kernel drops then; return its refusals of that.

    It is one send for up to 63 addresses and routes, so a kill of this process loses none of them. Raise
    KernelError if the interface cannot leave.
    """
    again = _again(own, lost, route.MAIN_TABLE)
    stays, *refused = nl.attempt([link.set_master(own.name, own.index, 0), *again])
    if stays:
        raise stays
    return _refusals(refused)


def _again(own: Link, lost: Layer3, table: int) -> list[Message]:
    # The addresses were checked for duplicates before.
    addresses = [
        addr.add(own.name, own.index, each.address, prefix_route=each.has_prefix_route)
        for each in lost.addresses
    ]
    return [*addresses, *(route.again(own.name, each.encoded, table) for each in lost.routes)]


def _refusals(answers: Iterable[KernelError | None]) -> list[KernelError]:
    return [each for each in answers if each and each.errno != errno.EEXIST]

"""A VRF in the container's namespace and its members."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface.layer3 import wait_until_received
from cni.kernel import link, netns, vrf
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.state.lock import held
from cni_vrf import layer3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni_vrf.conf import VrfConf
    from cni_vrf.layer3 import Layer3


@contextmanager
def opened(ns: Netns, *, removes: bool = False) -> Iterator[Netlink]:
    """Yield a socket in the namespace, with its lock: no other call chooses a table or removes the VRF.

    Processes of the container can hold the lock, so a block that only `removes` does not wait long.
    """
    with held(ns.fd, ns.path, removes=removes), Netlink(ns) as nl:
        yield nl


def required_link(nl: Netlink, request: Request) -> Link:
    """Return the container's interface. Raise CniError 100 if there is none."""
    own = link.find(nl, request.ifname)
    if own is None:
        raise CniError(
            Code.KERNEL,
            f"could not find interface {request.ifname}: Link not found",
            f"the plugin before vrf must make it in {request.netns}",
        )
    return own


def find(nl: Netlink, name: str) -> Link | None:
    """Return the VRF with this name; None if there is none. Raise CniError 105 for a link of another kind."""
    present = link.find(nl, name)
    if present is not None and present.kind != vrf.KIND:
        raise CniError(
            Code.ALREADY_EXISTS,
            f"interface {name} already exists and is of kind {present.kind or 'hardware'}",
            'set "vrfname" to a name that no other link of the container has',
        )
    return present


def ensure(nl: Netlink, conf: VrfConf) -> Link:
    """Return the VRF, switched on; create it if it is missing. Raise CniError 105 for another table."""
    name = conf.vrfname
    present = find(nl, name)
    if present is None:
        data = vrf.settings(conf.table or _choose_table(nl))
        link.create(nl, f"could not create VRF {name}", vrf.KIND, data, link.identity(name, ""))
        present = link.get(nl, name)
    elif conf.table and vrf.describe(present) != conf.table:
        raise CniError(
            Code.ALREADY_EXISTS,
            f"VRF {name} already exist with different routing table {vrf.describe(present)}",
            f'set "table" to {vrf.describe(present)}, or leave it out',
        )
    nl.batch([link.set_flags(name, present.index, on=link.IFF_UP)])
    return present


def _choose_table(nl: Netlink) -> int:
    used = {vrf.describe(each) for each in link.list_links(nl) if each.kind == vrf.KIND}
    return next(each for each in count(1) if each not in used)


def enter(nl: Netlink, own: Link, member_of: Link, before: Layer3) -> None:
    """Make a link a member, with the addresses and routes that it has; the routes go to the VRF's table.

    Raise KernelError.
    """
    nl.batch([link.set_master(own.name, own.index, member_of.index)])
    for refusal in layer3.restore(nl, own, before, vrf.describe(member_of)):
        raise refusal
    wait_until_received(nl, own, [each.address for each in before.addresses])


def take_out(conf: VrfConf, request: Request, before: Layer3 | None = None) -> None:
    """Take the interface out of the VRF, and remove a VRF that has no member any more.

    The interface gets the addresses and routes of `before`, or else those that it has in the VRF. Succeed
    without the interface, the VRF and the namespace.
    """
    ns = netns.find(request.netns)
    if ns is None:
        return
    with ns, opened(ns, removes=True) as nl:
        present, own = link.find(nl, conf.vrfname), link.find(nl, request.ifname)
        if present is None or present.kind != vrf.KIND:
            return
        if own and own.master == present.index:
            kept = before or layer3.list_all(nl, own, vrf.describe(present))
            for refusal in layer3.leave(nl, own, kept):
                note(f"vrf: {refusal}")
        if not link.list_links(nl, present.index):
            link.remove(nl, present.name, present.index)

"""The host end of the container's interface, proven from the host's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface.plan import host_name
from cni.kernel import link, veth
from cni_bandwidth.plan import host_links

if TYPE_CHECKING:
    from cni.firewall.intents import Owner
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.result import Result


def find_host_end(sides: Sides, result: Result, owner: Owner) -> Link | None:
    """Return the host end: a link of the host in the result, or of the name that this suite chooses.

    The kernel must prove that it leads to the container's interface: what that one reports is the
    container's choice.
    """
    inside = link.find(sides.inside, owner.ifname)
    listed = dict.fromkeys([*host_links(result), host_name(owner)])
    return veth.find(sides.host, [*listed], sides.ns).end_of(inside)


def required_host_end(sides: Sides, result: Result, owner: Owner) -> Link:
    """Return the host end. Raise CniError 7 if there is none."""
    if found := find_host_end(sides, result, owner):
        return found
    inside = link.find(sides.inside, owner.ifname)
    if inside is None:
        message = f'container interface {owner.ifname} has no veth peer: failed to lookup "{owner.ifname}"'
    elif inside.kind != veth.KIND:
        message = (
            f"container interface {owner.ifname} has no veth peer: its kind is {inside.kind or 'hardware'}"
        )
    else:
        message = "no veth peer of container interface found in host ns"
    raise CniError(
        Code.INVALID_CONFIG,
        message,
        "Limits need a veth pair whose host end is in the result. List bandwidth behind bridge or ptp.",
    )

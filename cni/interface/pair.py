"""Create the veth pair of an attachment, and wait until it carries traffic.

A pair is created in two steps: first the links, in the group of unfinished links, then the alias of the host
end, which names the owner. A plugin takes both steps under a lock. GC takes the same lock, and so removes
only pairs whose ADD was killed between the steps.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.kernel import link, netns, sysctl, veth
from cni.kernel.rtnetlink import Netlink
from cni.result import Interface
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni.interface.plan import PairPlan
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.veth import VethSpec
    from cni.undo import Undo

# The lock for pairs whose host end is no port of a bridge.
LOCK = Path("/run/pycni/pairs.lock")
_NAME_ATTEMPTS = 10
_UP_WITHIN_S = 10.0
UP, UNKNOWN = "up", "unknown"


class Sides(NamedTuple):
    """The host and the container: a socket in each one's namespace, and the container's namespace."""

    host: Netlink
    inside: Netlink
    ns: Netns


class Pair(NamedTuple):
    """The two ends of a pair after they were created."""

    host: Link
    container: Link

    def interfaces(self, plan: PairPlan) -> list[Interface]:
        """Return both ends as the result shows them."""
        mtu = self.container.mtu
        return [
            Interface(self.host.name, self.host.mac, mtu=mtu),
            Interface(plan.ifname, self.container.mac, plan.netns, mtu),
        ]


@contextmanager
def open_sides(path: str) -> Iterator[Sides]:
    """Open the container's namespace and a socket on both sides. Raise CniError 8."""
    with netns.open_netns(path) as ns, Netlink() as host, Netlink(ns) as inside:
        yield Sides(host, inside, ns)


@contextmanager
def pairs_locked() -> Iterator[None]:
    """Hold the lock for pairs whose host end is no port of a bridge."""
    files.ensure_directory(LOCK.parent)
    with locked(LOCK):
        yield


def create(plan: PairPlan, sides: Sides, undo: Undo, master: int = 0) -> VethSpec:
    """Create a pair, both ends down and without an owner. The caller has the lock and calls `claim`.

    The host end gets another name if the planned one is taken. `master` is the index of its bridge.
    """
    for attempt in range(_NAME_ATTEMPTS):
        spec = veth.VethSpec(
            host_name=veth.new_host_name() if attempt else plan.host_name,
            host_mac=link.new_mac(),
            container_name=plan.ifname,
            container_mac=plan.mac or link.new_mac(),
            netns=sides.ns,
            mtu=plan.mtu,
            master=master,
            group=link.UNFINISHED,
        )
        undo.add(f"remove {spec.host_name}", remove_created, spec.host_name, spec.host_mac)
        if veth.create(sides.host, spec):
            return spec
        if link.find(sides.inside, plan.ifname):
            break
    raise CniError(
        Code.ALREADY_EXISTS,
        f'container veth name ("{plan.ifname}") peer provided ("{spec.host_name}") already exists',
        f"the namespace {plan.netns} has a link of this name already",
    )


def claim(plan: PairPlan, spec: VethSpec, sides: Sides, *others: str) -> tuple[Pair, list[Link]]:
    """Mark the host end with its owner; return the pair, and links of the host with other names."""
    owner = link.set_owner(spec.host_name, plan.alias)
    *shown, host = link.get_all(sides.host, [*others, spec.host_name], owner)
    container = veth.describe_container_end(host, spec) or link.get(sides.inside, plan.ifname)
    return Pair(host, container), shown


def remove_created(host_name: str, host_mac: str) -> None:
    """Remove a veth pair by its host end, if that has this MAC address."""
    with Netlink() as nl:
        link.remove_created(nl, host_name, host_mac)


def refuse_routers(host_name: str) -> None:
    """Make the host ignore router advertisements of the container; called before the host end is up."""
    sysctl.set_if_possible(f"net/ipv6/conf/{host_name}/accept_ra", "0")


def skip_duplicate_check(name: str) -> None:
    """Let a gateway's link have its link-local address at once.

    The kernel looks up neighbours from that address, but not while it checks the address for duplicates.
    Packets from outside for a container's IPv6 address would be lost for one to two seconds.
    """
    sysctl.set_if_possible(f"net/ipv6/conf/{name}/accept_dad", "0")


def wait_until_up(
    nl: Netlink, name: str, described: str = "bridge port", states: Collection[str] = (UP,)
) -> None:
    """Wait until a link carries traffic, as `states` say. Raise CniError 100 if it does not within 10 s."""
    deadline = time.monotonic() + _UP_WITHIN_S
    pause_s = 0.0005
    while (state := link.get_operstate(nl, name)) not in states:
        if time.monotonic() > deadline:
            raise CniError(Code.KERNEL, f"{described} in error state: {state}", f'it is "{name}"')
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)


def is_unfinished(end: Link) -> bool:
    """Return whether a link is the host end of a pair that has no owner yet."""
    return end.kind == veth.KIND and end.group == link.UNFINISHED and not end.alias

"""Every point is met by some call, the rare ones too, and those are no better places to be killed at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cni import faults
from cni.testing.faults import KILL, TELL, Fault, list_met
from tests.netns.fault_world import CALM, CUT, Step, assert_none, busy_world, world
from tests.support.scene import INTERFACE, PORTS

if TYPE_CHECKING:
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

pytestmark = pytest.mark.parametrize("backend", ["nftables"])

# More leases than a pool may have without a cache of who holds what.
_FILL = "for n in $(seq 100 140); do printf 'other\\r\\neth0' > 10.1.0.$n; done"


def fill_pool(world: World) -> None:
    world.host.run(["sh", "-c", f"cd /var/lib/cni/networks/net1; {_FILL}"])


def send_udp(world: World) -> None:
    """Make the kernel track a flow to a published port."""
    with world.sandboxes[CUT].serve(80, "udp"):
        assert world.host.reaches("10.1.0.1", 9090, "udp", timeout_s=5)


def test_every_point_is_met(busy_world: World, backend: str) -> None:
    world = busy_world
    fill_pool(world)
    met: set[str] = set()
    for verb in ("ADD", "DEL"):
        for plugin in world.plugins[:: 1 if verb == "ADD" else -1]:
            answer = world.call(plugin, verb, CUT, Fault(TELL, "").env)
            answer.must()
            met |= {each.split(" ")[0] for each in list_met(answer)}
        if verb == "ADD":
            send_udp(world)
    assert met == set(faults.POINTS)


def without_cache(lines: list[str]) -> list[str]:
    return [each for each in lines if "/run/pycni/leases/" not in each]


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_while_a_large_pool_is_changed(busy_world: World, backend: str, verb: str) -> None:
    world, step = busy_world, Step(INTERFACE, verb)
    fill_pool(world)
    world.add(CUT)
    world.delete(CUT)
    before = world.host.snapshot()
    found = {}
    kinds = ("index.changed", "store.", "lock.taken")
    for at in [each for each in world.positions(step) if each.point.startswith(kinds)]:
        world.prepare(step)
        answer = world.call(INTERFACE, verb, CUT, at._replace(action=KILL).env)
        found[at] = [] if at.was_met(answer) and not answer.ok else [f"it was not killed: {answer}"]
        world.delete(CUT)
        found[at] += without_cache(world.left(before))
        world.add(CUT)
        # What the cache says of the container must be what lies there.
        second = world.call(INTERFACE, "ADD", CUT)
        found[at] += [f"a second ADD: {second}"] if second.ok else []
        world.delete(CUT)
        found[at] += without_cache(world.left(before))
    assert_none(found)
    assert world.is_calm()


def list_flows(world: World) -> list[str]:
    """Return the ports of the UDP flows that the kernel tracks."""
    shown = world.host.run(["cat", "/proc/net/nf_conntrack"])
    return re.findall(r" udp .*?dport=(8080|9090) .*?dport", shown)


@pytest.mark.parametrize("end", ["DEL", "GC"])
def test_killed_while_flows_are_forgotten(busy_world: World, backend: str, end: str) -> None:
    """Of two flows one is left, which goes with what cleans up; another container's stays."""
    world = busy_world
    world.host.run(["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_udp_timeout=600"])
    with world.sandboxes[CALM].serve(80, "udp"):
        assert world.host.reaches("10.1.0.1", 8080, "udp", timeout_s=5)
    before = world.host.snapshot()
    world.add(CUT)
    send_udp(world)
    send_udp(world)
    assert sorted(list_flows(world)) == ["8080", "9090", "9090"]
    assert [line for line in world.left(before) if line.startswith("+ flows: ") and " 9090 " in line]
    at = Fault(KILL, "conntrack.forgotten")
    answer = world.call(PORTS, "DEL", CUT, at.env)
    assert at.was_met(answer)
    assert not answer.ok
    assert sorted(list_flows(world)) == ["8080", "9090"]
    if end == "DEL":
        world.delete(CUT)
    else:
        world.collect([CALM])
    assert list_flows(world) == ["8080"]
    # GC takes nothing out of a container that lives.
    assert [line for line in world.left(before) if f": {CUT}: " not in line] == []

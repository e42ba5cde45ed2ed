"""A plugin is killed while a program that it has started goes on: DEL comes after that, not before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cni.testing.faults import KILL, TELL, Fault, list_met
from tests.netns.fault_world import CALM, CUT, busy_world, world
from tests.support.scene import INTERFACE, PORTS

if TYPE_CHECKING:
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

SLOW_S = 0.6
_SLOW = """
mkdir -p /run/slow
for name in iptables-restore ip6tables-restore nft; do
    printf '#!/bin/sh\\nexec 5<&0\\nsleep {slow}\\nexec %s "$@" <&5\\n' $(command -v $name) > /run/slow/$name
    chmod +x /run/slow/$name
done
"""


def list_started(world: World, plugin: str, env: dict[str, str]) -> list[Fault]:
    """Return the points of a plugin's ADD at which a program works; it is attached afterwards."""
    answer = world.call(plugin, "ADD", CUT, Fault(TELL, "").env | env)
    answer.must()
    met = [each.split(" ") for each in list_met(answer)]
    return [Fault(KILL, point, int(number)) for point, number in met if point == "process.started"]


@pytest.mark.parametrize(
    ("plugin", "backend"), [(INTERFACE, "iptables"), (PORTS, "iptables"), (INTERFACE, "nftables")]
)
def test_what_an_orphan_does_is_not_left(busy_world: World, plugin: str, backend: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    env = {"PATH": "/run/slow:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    # No wrapper is known to be the nf_tables variant, whose work netlink does.
    world.host.run(["sh", "-e"], _SLOW.format(slow=0))
    world.add(CUT, plugin)
    faults = list_started(world, plugin, env)
    world.delete(CUT)
    world.host.run(["sh", "-e"], _SLOW.format(slow=SLOW_S))
    assert faults
    for fault in faults:
        world.add(CUT, plugin)
        answer = world.call(plugin, "ADD", CUT, fault.env | env)
        assert fault.was_met(answer)
        assert not answer.ok
        world.delete(CUT)
        # The program had all its input, and would be done by now.
        time.sleep(2 * SLOW_S)
        left = [each for each in world.left(before) if "/run/slow/" not in each]
        assert left == [], fault
    assert CALM in world.results

"""A bridge ADD that is killed when it has made the pair and not yet said whose it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import link
from cni.testing.faults import KILL, Fault
from tests.netns.fault_world import CALM, COLD, CUT, busy_world, world
from tests.support.scene import INTERFACE

if TYPE_CHECKING:
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

pytestmark = pytest.mark.parametrize("backend", ["nftables"])
GONE = "/run/netns/gone"


def host_ends(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.host.json(["ip", "-d", "-j", "link", "show", "type", "veth"])
    return found


def unfinished(world: World) -> list[str]:
    """Name the ends that have no alias, which are in the group of unfinished ones."""
    found = [each for each in host_ends(world) if not each.get("ifalias")]
    assert {each["group"] for each in found} <= {str(link.UNFINISHED)}
    return [each["ifname"] for each in found]


def cut_short(world: World) -> None:
    answer = world.call(INTERFACE, "ADD", CUT, COLD | Fault(KILL, "netlink.changed", 1).env)
    assert not answer.ok
    assert len(unfinished(world)) == 1
    assert "eth0" in world.sandboxes[CUT].links()


def test_gc_finds_it_although_its_namespace_lives(busy_world: World, backend: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    cut_short(world)
    (name,) = unfinished(world)
    keys = {"cni.dev/valid-attachments": [{"containerID": CALM, "ifname": "eth0"}]}
    conf = world.conf(INTERFACE) | keys
    answer = world.host.plugin(INTERFACE, "PYCNI_GC_PLAN", conf, container_id="", ifname="")
    assert {
        "kind": "link", "name": name, "network": "net1", "reason": "its ADD was killed before the end"
    } in answer.must()["stale"]  # fmt: skip
    assert unfinished(world) == [name]
    world.collect([CALM])
    assert world.left(before) == []
    assert world.is_calm()


def test_del_finds_it_although_its_namespace_has_no_path_any_more(busy_world: World, backend: str) -> None:
    world = busy_world
    cut_short(world)
    for netns in (GONE, ""):
        answer = world.host.plugin(
            INTERFACE, "DEL", world.conf(INTERFACE), netns=netns, container_id="other", ifname="eth0"
        )
        answer.must()
        assert len(unfinished(world)) == 1
    world.host.plugin(INTERFACE, "DEL", world.conf(INTERFACE), netns=GONE, container_id=CUT).must()
    assert unfinished(world) == []
    assert world.sandboxes[CUT].links() == ["lo"]
    assert world.is_calm()


def test_an_attached_container_is_in_the_group_of_all_others(busy_world: World, backend: str) -> None:
    assert [each["group"] for each in host_ends(busy_world)] == ["default"]


def test_gc_takes_nothing_from_adds_that_go_on(busy_world: World, backend: str) -> None:
    """With COLD calls an ADD takes its time between the pair and the alias."""
    world = busy_world
    names = [f"c{each}" for each in range(8)]
    boxes = {name: world.host.sandbox(name) for name in names}
    keys = {"cni.dev/valid-attachments": [{"containerID": each, "ifname": "eth0"} for each in [CALM, *names]]}

    def add(name: str) -> bool:
        for _ in range(3):
            conf = world.conf(INTERFACE)
            world.host.plugin(INTERFACE, "ADD", conf, netns=boxes[name], container_id=name).must()
            world.host.plugin(INTERFACE, "DEL", conf, netns=boxes[name], container_id=name).must()
        return True

    with ThreadPoolExecutor(4) as pool:
        adds = [pool.submit(add, name) for name in names]
        rounds = 0
        while not all(each.done() for each in adds):
            world.host.plugin(
                INTERFACE, "GC", world.conf(INTERFACE) | keys, container_id="", ifname=""
            ).must()
            rounds += 1
        assert all(each.result() for each in adds)
    assert rounds > 3
    assert world.is_calm()

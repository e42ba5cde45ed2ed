"""STATUS says that nothing can be attached, and why, exactly where ADD fails as nothing can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from tests.netns.fault_world import BACKENDS_OF_PARTS, COLD, CUT, busy_world, world
from tests.netns.test_faults_environment import SPOILED
from tests.support.subjects import PLUGINS, add_link, subjects

if TYPE_CHECKING:
    from cni.testing import Answer
    from tests.netns.fault_world import World

__all__ = ["busy_world", "world"]

pytestmark = [
    pytest.mark.parametrize(
        ("backend", "plugin"),
        [each for each in BACKENDS_OF_PARTS if each[1] in subjects(only_with_state=True)],
    ),
]


def status(world: World, plugin: str) -> Answer:
    conf = world.conf(plugin)
    return world.host.plugin(plugin, "STATUS", conf, container_id="", ifname="", env=COLD, timeout_s=120)


def add(world: World, plugin: str) -> Answer:
    """Call ADD of a plugin, which may need the link that an earlier one could not make."""
    sandbox = world.sandboxes[CUT]
    is_helped = PLUGINS[plugin].needs_link and "eth0" not in sandbox.links()
    if is_helped:
        add_link(sandbox, world.results[CUT])
    answer = world.call(plugin, "ADD", CUT, COLD)
    if is_helped:
        world.call(plugin, "DEL", CUT, COLD)
        sandbox.run(["ip", "link", "delete", "eth0"])
    return answer


def test_status_says_what_add_would(busy_world: World, backend: str, plugin: str) -> None:
    world = busy_world
    before = world.host.snapshot()
    assert_good(world)
    for spoiled in SPOILED:
        world.host.run(["sh", "-c", spoiled.make])
        said = {name: status(world, name) for name in world.plugins}
        added = {name: add(world, name) for name in world.plugins}
        world.host.run(["sh", "-c", spoiled.unmake])
        told = {name: answer.code == Code.NOT_AVAILABLE for name, answer in said.items()}
        assert told == {name: answer.code == Code.STORE for name, answer in added.items()}, (said, added)
        assert any(told.values()), spoiled
        for name, answer in said.items():
            assert answer.ok or all(text in f"{answer.json}" for text in (spoiled.folder, spoiled.reason))
            assert answer.ok == added[name].ok, (spoiled, answer)
        world.delete(CUT)
        assert world.left(before) == [], spoiled
        assert_good(world)


def assert_good(world: World) -> None:
    """Fail the test unless every plugin says that it can attach a container."""
    for name in world.plugins:
        status(world, name).must()


def test_status_before_the_first_add_says_that_no_folder_can_be_made(
    world: World, backend: str, plugin: str
) -> None:
    """Nothing was ever attached: no folder is there yet, and none can be made."""
    world.host.run(["sh", "-c", "mount -o remount,ro /run"])
    said = {name: status(world, name) for name in world.plugins}
    world.results[CUT] = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": world.sandboxes[CUT].path}],
        "ips": [{"address": "10.1.0.3/24", "interface": 0}, {"address": "fd01::3/64", "interface": 0}],
    }
    added = {name: add(world, name) for name in world.plugins}
    world.host.run(["sh", "-c", "mount -o remount,rw /run"])
    # ADD may want more of a result than this one has. Then a plugin with state must say so.
    lost = {
        name: PLUGINS[name].keeps_state if answer.code == Code.INVALID_CONFIG else answer.code == Code.STORE
        for name, answer in added.items()
    }
    assert {name: answer.code == Code.NOT_AVAILABLE for name, answer in said.items()} == lost
    assert any(lost.values())
    for name in (each for each, is_lost in lost.items() if is_lost):
        assert "/run/pycni" in said[name].msg
        assert said[name].msg.endswith(": read-only file system")

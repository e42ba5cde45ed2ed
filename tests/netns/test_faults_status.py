"""STATUS says that nothing can be attached, and why, exactly where ADD fails as nothing can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from tests.netns.fault_world import BACKENDS, COLD, CUT, PLUGINS, busy_world, faulty_bindir, world
from tests.netns.test_faults_environment import SPOILED

if TYPE_CHECKING:
    from cni.testing import Answer
    from tests.netns.fault_world import World
    from tests.netns.test_faults_environment import Spoiled

__all__ = ["busy_world", "faulty_bindir", "world"]

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def status(world: World, plugin: str) -> Answer:
    conf = world.conf(plugin)
    return world.host.plugin(plugin, "STATUS", conf, container_id="", ifname="", env=COLD, timeout_s=120)


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda each: f"{each.folder} {each.reason}")
def test_status_says_what_add_would(busy_world: World, backend: str, spoiled: Spoiled) -> None:
    world, folder = busy_world, spoiled.folder
    before = world.host.snapshot()
    for plugin in PLUGINS:
        status(world, plugin).must()
    world.host.run(["sh", "-c", spoiled.make])
    said = {plugin: status(world, plugin) for plugin in PLUGINS}
    added = {plugin: world.call(plugin, "ADD", CUT, COLD) for plugin in PLUGINS}
    world.host.run(["sh", "-c", spoiled.unmake])
    told = {plugin: answer.code == Code.NOT_AVAILABLE for plugin, answer in said.items()}
    assert told == {plugin: answer.code == Code.STORE for plugin, answer in added.items()}, (said, added)
    assert any(told.values())
    for plugin, answer in said.items():
        assert answer.ok or (folder in f"{answer.json}" and spoiled.reason in f"{answer.json}"), answer
        assert answer.ok == added[plugin].ok
    world.delete(CUT)
    assert world.left(before) == []
    for plugin in PLUGINS:
        status(world, plugin).must()


def test_status_before_the_first_add_says_that_no_folder_can_be_made(world: World, backend: str) -> None:
    """Nothing was ever attached: no folder is there yet, and none can be made."""
    world.host.run(["sh", "-c", "mount -o remount,ro /run"])
    said = {plugin: status(world, plugin) for plugin in PLUGINS}
    world.host.run(["sh", "-c", "mount -o remount,rw /run"])
    assert {plugin for plugin, answer in said.items() if answer.code == Code.NOT_AVAILABLE} == {
        "bridge", "portmap"
    }  # fmt: skip
    for plugin in ("bridge", "portmap"):
        assert "/run/pycni" in said[plugin].msg
        assert said[plugin].msg.endswith(": read-only file system")

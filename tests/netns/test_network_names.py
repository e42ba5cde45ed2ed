"""Containers find each other by name on the networks that `pycni network create` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

ARGS = "IgnoreUnknown=1;K8S_POD_NAME="


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    """Return a host with the containers "web" and "db" on the network "front"."""
    world = World(host, tmp_path)
    world.ok("network", "create", "front")
    for name in ("web", "db"):
        host.sandbox(name)
        world.ok("add", "front", name, CNI_ARGS=f"{ARGS}{name}")
    return world


def query(world: World, name: str, asker: str) -> str:
    return world.run("dns", "query", name, "--as", asker).stdout


def test_names_and_aliases_are_answered(world: World) -> None:
    assert query(world, "db", "web") == query(world, "db.pycni.internal", "web") == "10.89.0.3\n"
    world.ok("network", "create", "--internal", "back")
    world.ok("network", "connect", "--alias", "store", "back", "db")
    assert query(world, "store", "db") == "10.89.1.2\n"
    assert query(world, "store", "web") == ""
    world.ok("network", "disconnect", "back", "db")
    assert query(world, "store", "db") == ""


def test_a_container_that_publishes_port_53_keeps_no_other_from_its_network(world: World) -> None:
    """Questions of the host to the gateway go to it, those of other containers do not."""
    world.ok("publish", "web", "53:53/udp", "53:53")
    world.ok("network", "create", "back")
    world.ok("network", "connect", "back", "db")
    world.host.sandbox("late")
    world.ok("add", "back", "late", CNI_ARGS=f"{ARGS}late")
    assert query(world, "late", "db") == "10.89.1.3\n"
    world.ok("check", "back", "late", CNI_ARGS=f"{ARGS}late")
    world.ok("del", "back", "late", CNI_ARGS=f"{ARGS}late")
    assert query(world, "late", "db") == ""

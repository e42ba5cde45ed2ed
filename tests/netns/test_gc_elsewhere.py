"""`pycni gc --dead-only` in a mount namespace that does not show the containers, as with PrivateTmp=."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing import GO
from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host


def test_gc_keeps_a_container_in_a_hidden_namespace_and_removes_the_dead(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("well", (8080, "tcp"))
    world.attach("dead", (8081, "tcp"))
    world.sandboxes["dead"].delete()
    hide = 'umount /run/netns/well; exec "$0" gc web --dead-only'
    command = world.command
    host.run(["unshare", "-m", "--propagation", "private", "sh", "-c", hide, command], timeout_s=120)
    assert world.check("well")[0] == 0
    assert not any("8081" in each for each in world.elements())


@pytest.mark.interop
@scene.needs_go
@pytest.mark.parametrize("verb", ["gc web", "del web c1"])
def test_no_address_is_freed_of_what_stays_attached(host: Host, tmp_path: Path, verb: str) -> None:
    """DEL has no result before version 0.4.0, and the Go plugins leave no mark on a host end."""
    world = World(host, tmp_path)
    keys = {key: value for key, value in world.bridge.items() if key != "ipMasqBackend"}
    world.configure("web", keys, version="0.3.1")
    world.attach("c1", bindir=GO)
    hide = f'umount /run/netns/c1; exec "$0" {verb}'
    host.run(["unshare", "-m", "--propagation", "private", "sh", "-c", hide, world.command], timeout_s=120)
    assert host.run(["find", "/var/lib/cni/networks", "-name", "10.*"]) == ""
    assert world.sandboxes["c1"].links() == ["lo"]

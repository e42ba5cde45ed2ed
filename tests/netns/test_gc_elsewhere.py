"""`pycni gc --dead-only` in a mount namespace that does not show the containers, as with PrivateTmp=."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.netns.attached_world import World

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host


def test_what_lives_elsewhere_is_kept_and_the_dead_go(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("well", (8080, "tcp"))
    world.attach("dead", (8081, "tcp"))
    world.sandboxes["dead"].delete()
    hide = 'umount /run/netns/well; exec "$0" gc web --dead-only'
    command = world.command
    host.run(["unshare", "-m", "--propagation", "private", "sh", "-c", hide, command], timeout_s=120)
    assert world.check("well")[0] == 0
    assert not any("8081" in each for each in world.elements())

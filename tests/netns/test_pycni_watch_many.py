"""`pycni watch` repairs several containers at once, in more than one group."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World
from tests.netns.test_pycni_watch import RELOADS, states
from tests.netns.watch_process import WatchProcess
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

# More than any machine repairs at once.
NAMES = [f"c{number}" for number in range(10)]


@pytest.mark.parametrize(("backend", "reload", "program"), RELOADS.values(), ids=RELOADS)
def test_all_containers_get_back_their_rules_and_their_bridge(
    host: Host, tmp_path: Path, backend: str, reload: str, program: str
) -> None:
    world = World(host, tmp_path, backend)
    for number, name in enumerate(NAMES):
        world.attach(name, (8080 + number, "tcp"))
    before = world.rules()
    with WatchProcess(world) as watch:
        host.run(["sh", "-c", reload])
        done = watch.next()
        assert done["event"].startswith(program)
        assert states(done) == [(name, "repaired") for name in NAMES]
        wait_until(lambda: world.rules() == before)
        host.run(["ip", "link", "del", "web0"])
        repaired: set[tuple[str, str]] = set()
        while {name for name, _ in repaired} != set(NAMES):
            repaired |= set(states(watch.next()))
        wait_until(lambda: world.rules() == before)
    shown = json.loads(world.ok("repair", "--dry-run", "--json"))
    assert states(shown) == [(name, "well") for name in NAMES]

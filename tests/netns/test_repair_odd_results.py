"""A cached result with a value that no ADD writes prevents the repair of its own attachment only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.netns.watch_process import WatchProcess

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

NAMES = ("c1", "c2", "c3")
WANTED = {"c1": "repaired", "c2": "failed", "c3": "repaired"}
# No path may have this byte, and the system calls of Python raise ValueError for it.
ODD = "\0"


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    """Return a host with three containers, the second of which has an odd cached result."""
    world = World(host, tmp_path)
    for number, name in enumerate(NAMES):
        world.attach(name, (8080 + number, "tcp"))
    results = "/var/lib/cni/results"
    file = host.run(["grep", "-l", "-r", '/run/netns/c2"', results]).strip()
    document = json.loads(host.run(["cat", file]))
    document["netns"] += ODD
    host.run(["cp", "/dev/stdin", file], json.dumps(document))
    return world


def shown(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the attachments of a document by the names of their containers."""
    return {each["netns"].rpartition("/")[2].strip(ODD): each for each in document["attachments"]}


def test_a_repair_reports_it_and_repairs_the_others(world: World) -> None:
    world.host.run(["nft", "flush", "ruleset"])
    done = world.run("repair", "--json")
    outcomes = shown(json.loads(done.stdout))
    assert {name: each["state"] for name, each in outcomes.items()} == WANTED
    assert "unexpected ValueError: embedded null byte" in outcomes["c2"]["problems"]
    assert (done.returncode, done.stderr) == (1, "")


def test_a_watch_reports_it_and_goes_on(world: World) -> None:
    with WatchProcess(world) as watch:
        states: dict[str, str] = {}
        world.host.run(["nft", "flush", "ruleset"])
        while states != WANTED:
            states |= {name: each["state"] for name, each in shown(watch.next()).items()}
        world.host.run(["ip", "addr", "del", "10.9.0.1/24", "dev", "web0"])
        # Which of the two restores what they share is open.
        while "repaired" not in {each["state"] for each in shown(watch.next()).values()}:
            pass
        assert watch.end() == (0, "")

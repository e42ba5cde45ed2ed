"""A repair of many containers starts no more programs of a firewall than one of few, and few plugins.

Programs are counted, not times: each start takes milliseconds, so that they decide how long a reload of a
firewall cuts containers off.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World
from tests.netns.test_pycni_watch import RELOADS
from tests.netns.watch_process import PATH
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

FEW, MANY = 3, 12
PROGRAMS = ("nft", "iptables", "ip6tables", "iptables-restore", "ip6tables-restore")
PLUGINS = (scene.INTERFACE, scene.PORTS)
# Each plugin is asked to restore once, and to compare by at most so many processes at once.
MOST_PARTS = 8
# A program of all variants looks at the name that it is called by.
_COUNTING = """\
#!/bin/bash
echo "${0##*/}" >> /run/started
exec -a "${0##*/}" "%s" "$@"
"""


class Counting:
    """Programs and plugins of a host that write down each start."""

    def __init__(self, world: World) -> None:
        self._host = world.host
        self.env = {
            "PATH": f"/run/counting:{PATH}",
            "CNI_PATH": f"/run/counting:{world.host.bindir}",
        }
        self._host.run(["mkdir", "/run/counting"])
        for name in PROGRAMS:
            real = self._host.run(["sh", "-c", f"readlink -f $(command -v {name})"]).strip()
            # A file of the same name says which variant it is.
            file = real.rpartition("/")[2]
            self._write(file, real)
            if file != name:
                self._host.run(["ln", "-sf", file, f"/run/counting/{name}"])
        for name in PLUGINS:
            self._write(name, str(world.host.bindir / name))

    def _write(self, name: str, real: str) -> None:
        file = f"/run/counting/{name}"
        self._host.run(["cp", "/dev/stdin", file], _COUNTING % real)
        self._host.run(["chmod", "755", file])

    def take(self) -> tuple[int, Counter[str]]:
        """Return the number of programs since the last call, and that of starts of each plugin."""
        started = Counter(self._host.run(["sh", "-c", "cat /run/started; : > /run/started"]).split())
        plugins = Counter({name: started.pop(name, 0) for name in PLUGINS})
        return started.total(), plugins


def attach(world: World, numbers: range) -> None:
    for number in numbers:
        world.attach(f"c{number}", (8080 + number, "tcp"))


@pytest.mark.parametrize(("backend", "reload"), [each[:2] for each in RELOADS.values()], ids=RELOADS)
def test_many_are_repaired_by_as_many_programs_as_few(
    host: Host, tmp_path: Path, backend: str, reload: str
) -> None:
    world = World(host, tmp_path, backend)
    counting = Counting(world)
    counts = []
    for first, last in ((0, FEW), (FEW, MANY)):
        attach(world, range(first, last))
        before = world.rules()
        host.run(["sh", "-c", reload])
        host.run(["cp", "/dev/null", "/run/started"])
        told = json.loads(world.ok("repair", "--json", **counting.env))
        assert {each["state"] for each in told["attachments"]} == {"repaired"}
        counts.append(counting.take())
        assert world.rules() == before
    (few, _), (many, plugins) = counts
    assert few == many > 0
    assert all(count <= 1 + MOST_PARTS for count in plugins.values()), plugins

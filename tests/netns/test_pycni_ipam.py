"""`pycni ipam list`: used, free, and who holds what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

FOLDER = "/var/lib/cni/networks/web"
RANGES = [
    [
        {"subnet": "10.9.0.0/29"},
        {"subnet": "10.9.1.0/24", "rangeStart": "10.9.1.10", "rangeEnd": "10.9.1.19"},
    ],
    [{"subnet": "fd09::/126"}],
]


def test_used_free_and_holders_are_listed(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, ipam={"type": scene.IPAM, "ranges": RANGES})
    told = json.loads(world.ok("ipam", "list", "web", "--json"))
    assert told["sets"] == [
        {"ranges": ["10.9.0.1-10.9.0.6", "10.9.1.10-10.9.1.19"], "used": 0, "free": 15, "last": None},
        {"ranges": ["fd09::1-fd09::3"], "used": 0, "free": 2, "last": None},
    ]
    assert (told["network"], told["folder"], told["leases"]) == ("web", FOLDER, [])
    for name in ("c1", "c2"):
        world.attach(name)
    world.sandboxes["c2"].delete()
    host.run(["sh", "-c", f"printf 'lost\\r\\neth0' > {FOLDER}/10.9.1.15; : > {FOLDER}/10.9.1.16"])
    told = json.loads(world.ok("ipam", "list", "web", "--json"))
    assert [(each["used"], each["free"], each["last"]) for each in told["sets"]] == [
        (3, 12, "10.9.0.3"),
        (2, 0, "fd09::3"),
    ]
    assert [(each["address"], each["ifname"], each["netnsState"]) for each in told["leases"]] == [
        ("10.9.0.2", "eth0", "alive"),
        ("10.9.0.3", "eth0", "gone"),
        ("10.9.1.15", "eth0", "unknown"),
        ("10.9.1.16", "", "free"),
        ("fd09::2", "eth0", "alive"),
        ("fd09::3", "eth0", "gone"),
    ]
    lines = world.ok("ipam", "list", "web").splitlines()
    assert lines[0] == "10.9.0.1-10.9.0.6, 10.9.1.10-10.9.1.19: 3 used, 12 free, 10.9.0.3 allocated last"
    assert lines[2].split() == ["ADDRESS", "CONTAINER", "IFNAME", "NETNS"]
    assert lines[3].split()[0] == "10.9.0.2"


def test_a_network_without_a_pool_is_an_error(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, ipam={})
    done = world.run("ipam", "list", "web")
    assert done.returncode == 1
    assert 'network "web" has no address pool' in done.stderr

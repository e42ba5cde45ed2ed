"""A lease costs the same in a pool of ten and of 50,000; what makes it so is a cache that is never believed.

Counted, not timed, as in `test_scale_attachments.py`. `test_lease_index.py` tells what the cache says when;
here the Go plugin is the other one who writes.
"""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.ipam.lease_index import MANY as INDEXED
from cni.kernel.child import run
from cni.testing import GO
from cni.testing.place import BARE_ENV
from tests.netns.scale_chain import NETWORK, VERBS, Container, call
from tests.netns.scale_meter import FILES, NETLINK, OPENED, Meter, least
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Host
    from tests.netns.scale_meter import Cost

POOL = Path("/var/lib/cni/networks/scale")
FIRST = IPv4Address("10.64.0.2")
CONF: dict[str, Any] = {
    **NETWORK,
    "type": scene.IPAM,
    "ipam": {"type": scene.IPAM, "ranges": [[{"subnet": "10.64.0.0/12"}]]},
}
FEW, SOME, MANY = 10, 1_000, 50_000
ROUNDS = 4
# Addresses and names have more digits.
SLACK = 1.1

needs_go = [
    pytest.mark.interop,
    scene.needs_go,
]


def fill(leases: int) -> None:
    """Put leases of others into the pool, in the Go plugin's format."""
    POOL.mkdir(parents=True, exist_ok=True)
    for number in range(leases):
        (POOL / str(FIRST + number)).write_text(f"c{number}\r\neth0")
    (POOL / "last_reserved_ip.0").write_text(str(FIRST + leases - 1))


def container(number: int) -> Container:
    return Container(100_000 + number, "none")


def measure(bindir: Path, leases: int) -> dict[str, Cost]:
    """Reserve and release an address some times. Return the costs of each verb once the cache exists."""
    fill(leases)
    meter = Meter()
    rounds: list[dict[str, Cost]] = []
    for turn in range(ROUNDS):
        costs = {}
        for verb in VERBS:
            meter.read()
            call(bindir, verb, CONF, container(turn))
            costs[verb] = meter.read()
        rounds.append(costs)
    return {verb: least([each[verb] for each in rounds[1:]]) for verb in VERBS}


def test_leases_cost_the_same_in_a_pool_of_ten_and_of_50_000(host: Host) -> None:
    few, some, many = (host.call(measure, host.bindir, leases) for leases in (FEW, SOME, MANY))
    for verb in VERBS:
        assert some[verb].figures[OPENED] > 0
        assert few[verb].folders == (str(POOL),)
        # The cache is a folder of links, which are read by name.
        assert some[verb].folders == many[verb].folders == ()
        for before in (few, some):
            grown = [
                f"{verb}, {name}: {many[verb].figures[name]} instead of {before[verb].most[name]}"
                for name in (*FILES, *NETLINK)
                if many[verb].figures[name] > SLACK * before[verb].most[name]
            ]
            assert grown == []


class Pool:
    """A pool on a host that both suites use; for a child on that host. Ours tells whether it read it all."""

    def __init__(self, bindir: Path) -> None:
        self._bindir = bindir
        self._meter = Meter()
        fill(2 * INDEXED)

    def ours(self, verb: str, who: Container) -> bool:
        """Call our plugin. Return whether it had to list the pool."""
        self._meter.read()
        call(self._bindir, verb, CONF, who)
        return str(POOL) in self._meter.read().folders

    def theirs(self, verb: str, who: Container, address: str = "") -> None:
        """Call the Go plugin."""
        env = {**BARE_ENV, **who.env, "CNI_COMMAND": verb, "CNI_PATH": str(GO)}
        asked = {"args": {"cni": {"ips": [address]}}} if address else {}
        done = run([str(GO / scene.IPAM)], json.dumps(CONF | asked).encode(), env=env)
        assert done.status == 0, done.stdout

    def held(self, who: Container) -> list[str]:
        """Return the addresses that the files in the pool say the container has."""
        content = f"c{who.number}\r\neth0".encode()
        files = [path for path in POOL.iterdir() if path.name not in {"lock", "last_reserved_ip.0"}]
        return sorted(path.name for path in files if path.read_bytes() == content)


def see_cache_made_again(bindir: Path) -> None:
    pool, first, second, third = Pool(bindir), *map(container, range(3))
    assert pool.ours("ADD", first)
    assert not pool.ours("ADD", second)
    pool.theirs("ADD", third)
    assert pool.ours("DEL", third)
    assert pool.held(third) == []
    assert not pool.ours("DEL", second)
    assert len(pool.held(first)) == 1


def see_no_lease_of_another_removed(bindir: Path) -> None:
    pool, first, second = Pool(bindir), *map(container, range(2))
    pool.ours("ADD", first)
    [address] = pool.held(first)
    before = POOL.stat()
    pool.theirs("DEL", first)
    pool.theirs("ADD", second, address)
    # As if nobody else had been here: that is seen, and the files count.
    os.utime(POOL, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pool.ours("DEL", first)
    assert pool.held(second) == [address]


class TestTheGoPluginInBetween:
    pytestmark = needs_go

    def test_the_cache_is_made_again_when_the_go_plugin_has_changed_the_pool(self, host: Host) -> None:
        host.call(see_cache_made_again, host.bindir)

    def test_a_lease_that_the_go_plugin_gave_to_another_stays(self, host: Host) -> None:
        host.call(see_no_lease_of_another_removed, host.bindir)

"""Calls of host-device that are killed or fail at each point: the device comes back, as it was.

The tests of faults for all plugins have two containers at a time. Only one can have the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, why_no_namespaces
from cni.testing.faults import KILL, TELL, TERM, Fault, list_met

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer
    from cni.testing.snapshot import Snapshot
    from cni.testing.zygote import Zygote

pytestmark = pytest.mark.modes("cold")
COLD = {"PYCNI_WARM": "off"}
MAC = "02:00:00:00:00:a0"
PLUGIN = "host-device"
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": PLUGIN, "device": "hd0"}


class World:
    """A host with the device hd0, and an empty container."""

    def __init__(self, host: Host) -> None:
        self.host = host
        quiet = ["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"]
        host.run(quiet)
        host.sandbox("wire")
        host.sandbox("c1").run(quiet)
        host.run(
            ["ip", "-batch", "-"],
            f"""\
link add hd0 address {MAC} type veth peer name far netns wire
link set hd0 alias uplink up
addr add 198.51.100.7/24 brd + dev hd0
addr add 2001:db8:7::7/64 dev hd0 nodad
""",
        )
        self.call("ADD").must()
        self.call("DEL").must()

    def call(self, verb: str, env: dict[str, str] | None = None) -> Answer:
        """Call the plugin for the container, or for none."""
        conf, environment = dict(CONF), COLD | (env or {})
        if verb == "GC":
            conf["cni.dev/valid-attachments"] = []
            return self.host.plugin(PLUGIN, verb, conf, container_id="", ifname="", env=environment)
        return self.host.plugin(PLUGIN, verb, conf, netns="/run/netns/c1", env=environment)

    def points(self, verb: str) -> list[tuple[str, int]]:
        """Return the points that a call passes, in their order."""
        answer = self.call(verb, Fault(TELL, "").env)
        answer.must()
        return [(point, int(number)) for point, number in map(str.split, list_met(answer))]

    def left(self, before: Snapshot) -> list[str]:
        """List what differs from the state before."""
        return before.differences(self.host.snapshot())


@pytest.fixture
def world(faulty_bindir: Path, faulty_zygote: Zygote) -> Iterator[World]:
    """Yield a host on which a container was attached and detached."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(faulty_bindir, faulty_zygote) as host:
        yield World(host)


@pytest.mark.parametrize("remover", ["DEL", "GC"])
def test_what_a_killed_add_has_moved_comes_back(world: World, remover: str) -> None:
    before = world.host.snapshot()
    points = world.points("ADD")
    world.call("DEL").must()
    assert points
    for point, number in points:
        assert not world.call("ADD", Fault(KILL, point, number).env).ok
        world.call(remover).must()
        assert world.left(before) == [], (point, number)


def test_a_killed_add_can_be_called_again(world: World) -> None:
    """If the device was in the container already, a DEL has to come first."""
    before = world.host.snapshot()
    points = world.points("ADD")
    world.call("DEL").must()
    codes = set()
    for point, number in points:
        world.call("ADD", Fault(KILL, point, number).env)
        codes.add(world.call("ADD").code)
        world.call("DEL").must()
        assert world.left(before) == [], (point, number)
    assert codes == {0, 105}


def test_a_killed_del_can_be_called_again(world: World) -> None:
    before = world.host.snapshot()
    world.call("ADD").must()
    points = world.points("DEL")
    assert points
    for point, number in points:
        world.call("ADD").must()
        assert not world.call("DEL", Fault(KILL, point, number).env).ok
        for _ in range(2):
            world.call("DEL").must()
        assert world.left(before) == [], (point, number)


def test_an_add_that_is_terminated_undoes_itself(world: World) -> None:
    before = world.host.snapshot()
    points = world.points("ADD")
    world.call("DEL").must()
    for point, number in points:
        if point == "answer.written":
            continue
        assert not world.call("ADD", Fault(TERM, point, number).env).ok
        assert world.left(before) == [], (point, number)

"""`pycni network connect` and `disconnect` on running containers."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME="
ID = "cnitool-20b4ff582526573bbe7d"
PYTHON = "/usr/bin/python3"
SERVE = """
import socket
server = socket.create_server(("", 9999))
open({ready!r}, "w").close()
connection, _ = server.accept()
while data := connection.recv(1):
    connection.sendall(data)
"""
# Sends a byte for each file that appears, and wants it back.
CLIENT = """
import os, socket, time
connection = socket.create_connection(("10.9.0.3", 9999), timeout=20)
for number in range({steps}):
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    open(f"{folder}/answered{{number}}", "w").close()
    deadline = time.monotonic() + 60
    while not os.path.exists(f"{folder}/go{{number}}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    """Return a host with a container "c1" on the network "web", and the network "mine" without containers."""
    world = World(host, tmp_path)
    world.ok("network", "create", "--disable-dns", "mine")
    world.sandboxes["c1"] = host.sandbox("c1")
    world.ok("add", "web", "c1", CNI_ARGS=f"{ARGS}box")
    return world


def links(world: World) -> dict[str, list[str]]:
    """Return the IPv4 addresses of the container's links."""
    shown = world.host.json(["ip", "-n", "c1", "-4", "-j", "addr"])
    return {
        each["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in each["addr_info"]]
        for each in shown
        if each["ifname"] != "lo"
    }


def way_out(world: World) -> str:
    """Return the link of the container's route to the outside."""
    [found] = world.host.json(["ip", "-n", "c1", "-j", "route", "get", "192.0.2.77"])
    return str(found["dev"])


def refused(world: World, *arguments: str) -> str:
    """Run `pycni network`, which fails and changes no link. Return its line on stderr."""
    before = links(world)
    done = world.run("network", *arguments)
    assert done.returncode == 1, done.stdout
    assert links(world) == before
    return done.stderr


def test_a_container_has_many_names(world: World) -> None:
    for name in ("c1", "/run/netns/c1", ID, ID[:12], "20b4ff58", "box", "shop/box"):
        assert world.ok("network", "connect", "mine", name) == ""
        assert set(links(world)) == {"eth0", "eth1"}
        assert world.ok("network", "disconnect", "mine", name) == ""
        assert set(links(world)) == {"eth0"}


def test_disconnect_removes_what_connect_has_made(world: World) -> None:
    before = world.host.snapshot()
    world.ok("network", "connect", "mine", "box")
    world.ok("check", "mine", "c1", "-i", "eth1")
    [mine] = json.loads(world.ok("show", "mine", "--json"))["networks"]
    assert [(each["ifname"], each["podName"]) for each in mine["attachments"]] == [("eth1", "box")]
    assert "has attached containers" in world.run("network", "rm", "mine").stderr
    world.ok("network", "disconnect", "mine", "box")
    world.ok("network", "rm", "mine")
    left = [each for each in before.differences(world.host.snapshot()) if each.startswith("+ ")]
    files = ("/run/pycni/", "/var/lib/cni/networks/mine")
    assert [each for each in left if not any(one in each for one in (*files, "default"))] == []
    world.ok("check", "web", "c1")


def test_the_default_route_stays_unless_asked(world: World) -> None:
    world.ok("network", "connect", "mine", "c1")
    assert way_out(world) == "eth0"
    world.ok("network", "disconnect", "mine", "c1")
    world.ok("network", "connect", "--gw-priority", "1", "mine", "c1")
    assert way_out(world) == "eth1"
    world.ok("network", "disconnect", "mine", "c1")
    assert way_out(world) == "eth0"


def test_a_list_of_another_program_without_the_capability(world: World) -> None:
    world.configure("second", {**world.bridge, "bridge": "far0", "ipam": _pool("10.7.0.0/24")})
    world.ok("network", "connect", "second", "c1")
    assert (way_out(world), links(world)["eth1"]) == ("eth0", ["10.7.0.2/24"])
    world.ok("check", "second", "c1", "-i", "eth1")
    world.ok("network", "disconnect", "second", "c1")
    world.ok("network", "connect", "--gw-priority", "100", "second", "c1", "--ip", "10.7.0.99")
    assert (way_out(world), links(world)["eth1"]) == ("eth1", ["10.7.0.99/24"])
    # A runtime that knows nothing of the call.
    world.ok("del", "second", "c1", "-i", "eth1")
    assert set(links(world)) == {"eth0"}


def _pool(subnet: str) -> dict[str, Any]:
    return {"type": scene.IPAM, "subnet": subnet}


def test_address_and_mac_are_those_asked_for(world: World) -> None:
    mac = "02:11:22:33:44:55"
    world.ok("network", "connect", "--ip", "10.89.0.77", "--mac", mac, "mine", "c1")
    [shown] = world.host.json(["ip", "-n", "c1", "-j", "addr", "show", "eth1"])
    assert (shown["address"], links(world)["eth1"]) == (mac, ["10.89.0.77/24"])


def test_open_connections_survive(world: World, tmp_path: Path) -> None:
    world.attach("c2")
    ready = tmp_path / "ready"
    errors: list[BaseException] = []

    def run(sandbox: str, script: str) -> None:
        try:
            world.sandboxes[sandbox].run([PYTHON, "-c", script])
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    def start(sandbox: str, script: str) -> threading.Thread:
        thread = threading.Thread(target=run, args=(sandbox, script))
        thread.start()
        return thread

    server = start("c2", SERVE.format(ready=str(ready)))
    _wait(ready, errors)
    client = start("c1", CLIENT.format(folder=tmp_path, steps=3))
    for number, verb in enumerate((("connect", "--gw-priority", "9"), ("disconnect",), ())):
        _wait(tmp_path / f"answered{number}", errors)
        if verb:
            world.ok("network", *verb, "mine", "c1")
        (tmp_path / f"go{number}").touch()
    for each in (client, server):
        each.join(timeout=60)
        assert not each.is_alive()
    assert errors == []


def _wait(path: Path, errors: list[BaseException]) -> None:
    """Wait until a file is there."""
    pause = threading.Event()
    for _ in range(3000):
        if path.exists():
            return
        assert errors == []
        pause.wait(0.01)
    raise AssertionError(f"{path} does not appear")


def test_two_at_once_get_two_links(world: World) -> None:
    world.ok("network", "create", "other")
    threads = [
        threading.Thread(target=world.ok, args=("network", "connect", name, "c1"))
        for name in ("mine", "other")
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(links(world)) == {"eth0", "eth1", "eth2"}


def test_mistakes_are_refused(world: World) -> None:
    world.sandboxes["c2"] = world.host.sandbox("c2")
    world.ok("add", "web", "c2", CNI_ARGS=f"{ARGS}box")
    assert 'pycni: "box" names several containers: cnitool-' in refused(world, "connect", "mine", "box")
    world.sandboxes["c2"].delete()
    assert "container c2 is not running" in refused(world, "connect", "mine", "/run/netns/c2").replace(
        "/run/netns/", ""
    )
    assert "no such container: nope" in refused(world, "connect", "mine", "nope")
    assert "network nope not found" in refused(world, "connect", "nope", "c1")
    assert f"container {ID} is already connected to network web" in refused(world, "connect", "web", "c1")
    assert f"container {ID} is not connected to network mine" in refused(world, "disconnect", "mine", "c1")
    assert "invalid value for --ip" in refused(world, "connect", "--ip", "x", "mine", "c1")
    assert "10.1.2.3" in refused(world, "connect", "--ip", "10.1.2.3", "mine", "c1")
    assert "no plugin of network mine answers names" in refused(
        world, "connect", "--alias", "a", "mine", "c1"
    )
    assert world.run("network", "connect", "--gw-priority", "101", "mine", "c1").returncode == 2
    assert world.ok("complete", "--", "network", "disconnect", "web", "").split()[0] == "box"

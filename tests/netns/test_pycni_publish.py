"""`pycni publish` and `unpublish`: real packets to ports of running containers, with both backends."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.traffic import Server, ask
from tests.netns.attached_world import BACKENDS, World
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

IPAM = {"type": scene.IPAM, "subnet": "10.7.0.0/24"}
OTHER_SUITE = """#!/bin/sh
echo '{"cniVersion": "1.1.0", "code": 4, "msg": "unknown CNI_COMMAND: '$CNI_COMMAND'"}'
exit 1
"""


@pytest.fixture(params=BACKENDS)
def world(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[World]:
    """Return a host with a container "c1" that has published port 8080 and serves ports 80, 81 and 53/udp."""
    world = World(host, tmp_path, backend=request.param)
    world.attach("c1", (8080, "tcp"))
    with ExitStack() as stack:
        for port, protocol in ((80, "tcp"), (81, "tcp"), (53, "udp")):
            stack.enter_context(Server(world.sandboxes["c1"].place, port, protocol))
        yield world


def reaches(world: World, port: int, protocol: str = "tcp") -> bool:
    """Return whether the peer outside reaches a port of the host, in both families."""
    outside = world.host.outside
    answers = {
        _answers(world, each, port, protocol) for each in (outside.host_address, outside.host_address6)
    }
    [answer] = answers
    return answer


def _answers(world: World, address: str, port: int, protocol: str) -> bool:
    timeout_s = 2 if protocol == "udp" else 10
    try:
        world.host.outside.sandbox.call(ask, address, port, protocol, "", timeout_s)
    except OSError:
        return False
    return True


def ports(world: World) -> list[str]:
    """Return the ports that `show` prints."""
    [web] = json.loads(world.ok("show", "web", "--json"))["networks"]
    [attached] = web["attachments"]
    assert attached["problems"] == []
    return [f"{each['hostPort']}:{each['containerPort']}/{each['protocol']}" for each in attached["ports"]]


def refused(world: World, *arguments: str) -> str:
    """Run the command, which fails. Return its line on stderr."""
    done = world.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_ports_come_and_go_and_del_removes_all(world: World) -> None:
    world.host.outside  # noqa: B018 - the first use creates it
    before = world.rules()
    assert world.ok("publish", "c1", "8081:81", "5353:53/udp") == ""
    assert ports(world) == ["8080:80/tcp", "8081:81/tcp", "5353:53/udp"]
    assert [reaches(world, 8080), reaches(world, 8081), reaches(world, 5353, "udp")] == [True] * 3
    world.ok("check", "web", "c1")
    assert "well" in world.ok("repair")
    # Another container is refused the new port.
    world.sandboxes["c2"] = world.host.sandbox("c2")
    taken = {"portMappings": [_mapping(8081)]}
    done = world.run("add", "web", "c2", "--undo", CAP_ARGS=json.dumps(taken))
    assert (done.returncode, "8081" in done.stderr) == (1, True)
    assert world.ok("unpublish", "c1", "8081", "5353:53/udp") == ""
    assert [reaches(world, 8080), reaches(world, 8081)] == [True, False]
    assert (ports(world), world.rules()) == (["8080:80/tcp"], before)
    world.ok("unpublish", "c1", "8080")
    assert (ports(world), reaches(world, 8080)) == ([], False)
    world.ok("publish", "c1", "8082:80")
    assert reaches(world, 8082)
    # DEL of a runtime that knows none of these ports.
    world.ok("del", "web", "c1", CAP_ARGS=json.dumps({"portMappings": []}))
    assert not [each for each in world.rules() if "8082" in each]
    world.ok("add", "web", "c2", CAP_ARGS=json.dumps({"portMappings": [_mapping(8082)]}))


def _mapping(port: int) -> dict[str, Any]:
    return {"hostPort": port, "containerPort": 80, "protocol": "tcp"}


def test_clients_and_addresses_are_limited(world: World) -> None:
    outside = world.host.outside
    world.ok("publish", "c1", "8081:81", "--allow-from", f"{outside.address},{outside.address6}")
    world.ok("publish", "c1", "8082-8083:80-81", "--allow-from", "203.0.113.0/24")
    assert [reaches(world, port) for port in (8080, 8081, 8082, 8083)] == [True, True, False, False]
    world.ok("publish", "c1", f"{outside.host_address}:8084:80", f"[{outside.host_address6}]:8084:81")
    assert reaches(world, 8084)


def test_many_at_once_lose_no_port(world: World) -> None:
    numbers = range(8090, 8094)
    threads = [threading.Thread(target=world.ok, args=("publish", "c1", f"{each}:80")) for each in numbers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(ports(world)) == {"8080:80/tcp", *(f"{each}:80/tcp" for each in numbers)}


def test_mistakes_change_nothing(world: World, tmp_path: Path) -> None:
    world.configure("second", {**world.bridge, "bridge": "far0", "ipam": IPAM}, scene.ports())
    world.attach("c2", (8085, "tcp"), network="second")
    before, published = world.rules(), ports(world)
    for arguments, reason in (
        (["publish", "c1", "8081:81", "8085:80"], "8085"),
        (["publish", "c1", "8080:81"], "has published 8080/tcp already"),
        (["publish", "c1", "80"], 'invalid port "80": it is [IP:]HOST:CONTAINER[/PROTOCOL]'),
        (["publish", "c1", "0:80"], "a port is 1 to 65535"),
        (["publish", "c1", "8081:80/xyz"], 'invalid port "8081:80/xyz"'),
        (["publish", "c1", "8081-8083:80-81"], "both ranges must have the same length"),
        (["publish", "c1", "1.2.3:8081:80"], 'invalid port "1.2.3:8081:80"'),
        (["publish", "c1", "8081:80", "--allow-from", "x"], "allowFrom"),
        (["publish", "c1", "8081:80", "--network", "nope"], "has no network nope that publishes ports"),
        (["publish", "nope", "8081:80"], "no such container: nope"),
        (["unpublish", "c1", "8080", "8081"], "has not published 8081/tcp"),
        (["unpublish", "c1", "8080/udp"], "has not published 8080/udp"),
        (["unpublish", "c1", "8080:81"], "has not published 8080/tcp"),
    ):
        assert reason in refused(world, *arguments), arguments
    assert (world.rules(), ports(world)) == (before, published)
    bindir = tmp_path / "other"
    bindir.mkdir()
    (bindir / scene.PORTS).write_text(OTHER_SUITE)
    (bindir / scene.PORTS).chmod(0o755)
    done = world.run("publish", "c1", "8081:80", CNI_PATH=str(bindir))
    assert (done.returncode, "cannot change the ports" in done.stderr) == (1, True)

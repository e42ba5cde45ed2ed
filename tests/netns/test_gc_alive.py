"""`pycni gc --dead-only` and attachments that are alive though no result is cached, or no path shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import BACKENDS, World
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host, Sandbox

pytestmark = pytest.mark.modes("warm")

LONG = "long-" + "x" * 120
DIGEST = "0123456789abcdef" * 4
IDS = {"c1": "plain", "c2": DIGEST, "c3": LONG}
VERSIONS = pytest.mark.parametrize("version", ["0.4.0", "1.1.0"])
PORTS = {"c1": 8080, "c2": 8081, "c3": 8082}


def attach_directly(world: World, name: str, version: str, backend: str) -> Sandbox:
    """Attach as a runtime does that keeps its results elsewhere: nothing gets into the cache."""
    portmap = scene.ports(backend=backend)
    world.configure("web", world.bridge, portmap, version=version)
    sandbox = world.sandboxes[name] = world.host.sandbox(name)
    head = {"cniVersion": version, "name": "web"}
    call: dict[str, Any] = {"netns": sandbox, "container_id": IDS[name]}
    result = world.host.plugin(scene.INTERFACE, "ADD", world.bridge | head, **call).must()
    mapping = {"hostPort": PORTS[name], "containerPort": 80, "protocol": "tcp"}
    published = portmap | head | {"prevResult": result, "runtimeConfig": {"portMappings": [mapping]}}
    world.host.plugin(scene.PORTS, "ADD", published, **call).must()
    return sandbox


def state(world: World) -> list[Any]:
    host = world.host
    folders = ("/var/lib/cni/networks", "/run/pycni/hostports", "/run/pycni/nftables")
    files = host.run(["find", *folders, "-type", "f", "-not", "-name", "*lock"], check=False).split()
    veths = sorted(each for each in host.links() if each.startswith("veth"))
    shared = ("HOSTPORT", "CNI-GW-")
    chains = [each for each in sorted(world.chains()) if not any(word in each for word in shared)]
    return [veths, sorted(files), sorted(world.elements()), chains]


@VERSIONS
@pytest.mark.parametrize("backend", BACKENDS)
def test_living_attachments_without_a_cached_result_stay(
    host: Host, tmp_path: Path, backend: str, version: str
) -> None:
    world = World(host, tmp_path, backend)
    sandboxes = {name: attach_directly(world, name, version, backend) for name in IDS}
    before = state(world)
    assert len(before[0]) == len(IDS)
    told = json.loads(world.ok("gc", "web", "--dead-only", "--dry-run", "--json"))
    assert told["stale"] == []
    world.ok("gc", "web", "--dead-only")
    assert state(world) == before
    for name, sandbox in sandboxes.items():
        sandbox.run(["ping", "-c", "1", "-W", "2", "10.9.0.1"])
        with sandbox.serve(80):
            assert host.reaches("127.0.0.1", PORTS[name], timeout_s=5)
    for sandbox in sandboxes.values():
        sandbox.delete()
    world.ok("gc", "web", "--dead-only")
    links, files, elements, chains = state(world)
    assert (links, elements, chains) == ([], [], [])
    assert [each for each in files if "/networks/" in each and "last_reserved" not in each] == []
    assert [each for each in files if "hostports" in each] == []
    for container_id in IDS.values():
        assert not host.place.run(["grep", "-r", container_id, "/run/pycni"], check=False).stdout


@pytest.fixture
def hidden(host: Host, tmp_path: Path) -> Iterator[World]:
    """A container that lives in a process alone: nothing is mounted on the path that its runtime named."""
    world = World(host, tmp_path)
    world.attach("c1", (8080, "tcp"))
    pid = world.sandboxes["c1"].run(["sh", "-c", "sleep 1200 >/dev/null 2>&1 & echo $!"]).strip()
    host.run(["umount", "-l", "/run/netns/c1"])
    host.run(["rm", "/run/netns/c1"])
    yield world
    host.run(["kill", pid], check=False)


def run_as_machine(world: World, *arguments: str) -> str:
    """Run `pycni` where its mount namespace is that of process 1, so that paths count."""
    inner = ["unshare", "--pid", "--fork", "--mount-proc", world.command, *arguments]
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return world.host.run(inner, env={"PATH": path}, timeout_s=120)


def test_a_host_end_in_use_outweighs_a_missing_path(hidden: World) -> None:
    before = state(hidden)
    run_as_machine(hidden, "gc", "web", "--dead-only")
    assert state(hidden) == before
    [network] = json.loads(run_as_machine(hidden, "show", "--json"))["networks"]
    [shown] = network["attachments"]
    assert shown["netnsState"] == "alive"
    assert not any("is gone" in each for each in shown["problems"])
    listed = json.loads(run_as_machine(hidden, "ipam", "list", "web", "--json"))
    assert {each["netnsState"] for each in listed["leases"]} == {"alive"}
    plan = json.loads(run_as_machine(hidden, "gc", "web", "--dry-run", "--json"))["stale"]
    assert not any("gone" in each.get("reason", "") for each in plan)
    done = hidden.run("repair", "--json")
    assert '"gone"' not in done.stdout
    assert "is gone" not in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["show", "ipam"])
def test_an_attachment_that_the_caller_cannot_see_is_not_reported_as_gone(
    host: Host, tmp_path: Path, verb: str
) -> None:
    world = World(host, tmp_path)
    world.attach("c1")
    arguments = {"show": "show --json", "ipam": "ipam list web --json"}[verb]
    hide = f'umount /run/netns/c1; exec "$0" {arguments}'
    told = host.run(["unshare", "-m", "--propagation", "private", "sh", "-c", hide, world.command])
    assert '"netnsState": "alive"' in told
    assert "gone" not in told

"""Containers of `pycni run` find each other by name, and not those of other networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.names_world import wait_for_end
from tests.netns.run_world import PYTHON, RunWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

SERVE = """
import socket
server = socket.create_server(('', 80))
while True:
    peer = server.accept()[0]
    peer.sendall(NAME)
    peer.close()
"""
# Asks a server by name, as all programs do: by the C library.
ASK = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(socket.create_connection((name, 80), timeout=60).recv(100).decode())
    except socket.gaierror:
        print("unknown")
"""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[RunWorld]:
    """Yield a host with two networks with names."""
    world = RunWorld(host, tmp_path)
    _configure(world, "shop", 1)
    _configure(world, "lab", 2)
    yield world
    world.close()


def _configure(world: RunWorld, name: str, number: int, **keys: Any) -> None:
    ipam = {"type": "host-local", "subnet": f"10.{number}.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": f"{name}0", "isGateway": True, "ipam": ipam}
    names = {
        "type": "dnsname",
        "domainName": f"{name}.test",
        "capabilities": {"aliases": True},
        "upstreams": [],
    }
    world.configure(name, bridge, names | keys)


def _serve(world: RunWorld, name: str, *arguments: str) -> Any:
    script = f'exec {PYTHON} -c "{SERVE.replace("NAME", repr(name.encode()))}"'
    return world.started_until("--name", name, *arguments, script=script)


def _ask(world: RunWorld, names: list[str], *arguments: str) -> list[str]:
    return world.ok("run", *arguments, "--", PYTHON, "-c", ASK, *names).split()


def test_containers_find_each_other_by_name(world: RunWorld) -> None:
    web = _serve(world, "web", "--network", "shop", "--alias", "www")
    other = _serve(world, "other", "--network", "lab:alias=far", "--network", "shop")
    of_shop = ["web", "www", "WEB.shop.test", "other", "far"]
    assert _ask(world, of_shop, "--network", "shop") == ["web", "web", "web", "other", "unknown"]
    assert _ask(world, ["web", "far", "other"], "--network", "lab") == ["unknown", "other", "other"]
    # A container on both networks sees the names of both.
    both = ("--network", "lab", "--network", "shop")
    assert _ask(world, ["web", "far"], *both) == ["web", "other"]
    shown = world.ok("run", "--network", "shop", "--", "cat", "/etc/resolv.conf").splitlines()
    assert shown[1] == "nameserver 10.1.0.1"
    assert "shop.test" in shown[2].split()
    assert world.ok("dns", "query", "other", "--as", "web") == "10.1.0.3\n"
    world.end(web)
    assert _ask(world, ["web"], "--network", "shop") == ["unknown"]
    world.end(other)
    wait_for_end(world.host)

"""The chain of podman's networks, without the plugins of another suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.netns.chained_networks import BACKENDS, rules

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")
PORT = 8080


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.1.0"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_published_port_and_the_way_out(host: Host, tmp_path: Path, backend: str, version: str) -> None:
    world = World(host, tmp_path, backend)
    portmap: dict[str, Any] = {
        "type": "portmap",
        "backend": backend,
        "capabilities": {"portMappings": True},
    }
    firewall = {"type": "firewall", "backend": backend, "ingressPolicy": "same-bridge"}
    world.configure("web", world.bridge, portmap, firewall, version=version)
    outside = host.outside
    before = rules(host, "10.9.0.")
    for name in ("c1", "c2"):
        world.attach(name, *([(PORT, "tcp")] if name == "c1" else []))
    first, second = world.sandboxes["c1"], world.sandboxes["c2"]
    with first.serve(80):
        assert outside.sandbox.reaches(outside.host_address, PORT, timeout_s=10)
        assert second.reaches(outside.host_address, PORT, timeout_s=10)
    with outside.sandbox.serve(81):
        assert first.dial(outside.address, 81).address == outside.host_address
    assert world.ok("status", "web") == ""
    if version != "0.3.1":
        assert world.check("c1")[0] == 0
    world.ok("del", "web", first.path)
    assert rules(host, "10.9.0.2/") == []
    world.ok("del", "web", second.path)
    assert rules(host, "10.9.0.") == before
    world.ok("gc", "web")
    assert "pycni_firewall" not in host.run(["nft", "list", "tables"])
    assert rules(host, " web0 ") == []

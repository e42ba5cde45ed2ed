"""Debian's firewalld beside our plugins: rules that its reload deletes, and packets that it accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firewalld import Firewalld, why_no_firewalld
from tests.interop.streams import Echo, Stream
from tests.netns.attached_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_firewalld()), reason=why_no_firewalld() or "it is there"),
]
BRIDGE, PORT, ADDRESS = "web0", 8080, "10.9.0.2"


@pytest.fixture(params=["nftables", "iptables"])
def firewalld(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[Firewalld]:
    """Run firewalld with each of its backends."""
    assert host.outside
    (tmp_path / "firewalld").mkdir()
    with Firewalld(host, tmp_path / "firewalld", request.param) as firewalld:
        yield firewalld


def make_world(host: Host, tmp_path: Path, backend: str) -> World:
    (tmp_path / "world").mkdir()
    world = World(host, tmp_path / "world", backend)
    world.attach("c1", (PORT, "tcp"))
    return world


def is_published(world: World, *, timeout_s: float = 5) -> set[bool]:
    """Return whether the port is answered: from outside by both families, from the host by two addresses."""
    host, outside = world.host, world.host.outside
    with world.sandboxes["c1"].serve(80):
        return {
            outside.sandbox.reaches(outside.host_address, PORT, timeout_s=timeout_s),
            outside.sandbox.reaches(outside.host_address6, PORT, timeout_s=timeout_s),
            host.reaches(outside.host_address, PORT, timeout_s=timeout_s),
            host.reaches("127.0.0.1", PORT, timeout_s=timeout_s),
        }


def seen_outside(world: World, *, timeout_s: float = 5) -> str:
    """Return the address that a peer outside sees the container under, "" when it is not reached."""
    outside = world.host.outside
    with outside.sandbox.serve(81):
        try:
            return world.sandboxes["c1"].dial(outside.address, 81, timeout_s=timeout_s).address
        except OSError:
            return ""


def test_a_reload_leaves_what_the_backend_nftables_has_made(
    host: Host, tmp_path: Path, firewalld: Firewalld
) -> None:
    firewalld.trust(BRIDGE)
    world = make_world(host, tmp_path, "nftables")
    before, outside = world.rules(), host.outside
    assert is_published(world) == {True}
    with (
        Echo(world.sandboxes["c1"].place, 80),
        Stream("from outside", outside.sandbox.place, outside.host_address, PORT) as stream,
    ):
        for how in ("--reload", "--complete-reload"):
            stream.must_flow()
            firewalld.cmd(how)
            stream.must_flow()
            assert before - world.rules() == set()
        stream.end()
    assert world.check("c1")[0] == 0
    assert is_published(world) == {True}
    assert seen_outside(world) == outside.host_address
    assert "repaired" not in world.ok("repair")
    firewalld.close()
    assert world.check("c1")[0] == 0
    assert is_published(world) == {True}


def test_a_reload_takes_what_the_backend_iptables_has_made_and_repair_brings_it_back(
    host: Host, tmp_path: Path, firewalld: Firewalld
) -> None:
    firewalld.trust(BRIDGE)
    world = make_world(host, tmp_path, "iptables")
    before = world.rules()
    assert is_published(world) == {True}
    firewalld.cmd("--reload")
    code, told = world.check("c1")
    assert code == 104
    assert "not found in iptables table nat" in told
    assert is_published(world, timeout_s=0.5) == {False}
    assert seen_outside(world, timeout_s=1) == ""
    shown = world.ok("repair")
    assert "bridge: masquerading with iptables" in shown
    assert f"portmap: published {PORT}/tcp with iptables" in shown
    assert world.check("c1")[0] == 0
    assert is_published(world) == {True}
    assert seen_outside(world) == host.outside.host_address
    assert before - world.rules() == set()
    world.ok("del", "web", world.sandboxes["c1"].path)
    assert [line for line in world.rules() if str(PORT) in line or ADDRESS in line] == []


@pytest.mark.parametrize("firewalld", ["nftables"], indirect=True)
def test_containers_go_out_once_firewalld_trusts_their_bridge(
    host: Host, tmp_path: Path, firewalld: Firewalld
) -> None:
    world = make_world(host, tmp_path, "nftables")
    assert is_published(world) == {True}
    assert seen_outside(world, timeout_s=1) == ""
    firewalld.trust(BRIDGE)
    assert seen_outside(world) == host.outside.host_address
    firewalld.cmd("--reload")
    assert seen_outside(world) == host.outside.host_address

"""`pycni watch` adds sources of firewalld's zones again when firewalld has lost them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firewalld import Firewalld, why_no_firewalld
from tests.netns.attached_world import World
from tests.netns.watch_process import WatchProcess

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_firewalld()), reason=why_no_firewalld() or "it is there"),
]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_sources_of_zones_are_added_again(host: Host, tmp_path: Path, backend: str) -> None:
    for name in ("firewalld", "world"):
        (tmp_path / name).mkdir()
    with Firewalld(host, tmp_path / "firewalld", backend) as firewalld:
        world = World(host, tmp_path / "world", "nftables")
        world.configure("web", world.bridge, {"type": "firewall", "backend": "firewalld"})
        world.attach("c1")
        before = firewalld.cmd("--zone=trusted", "--list-sources")
        assert "10.9.0.2/32" in before
        with WatchProcess(world) as watch:
            firewalld.cmd("--reload")
            done = watch.next()
            assert "firewalld" in done["event"]
            assert [each["state"] for each in done["attachments"]] == ["repaired"]
            assert set(firewalld.cmd("--zone=trusted", "--list-sources").split()) == set(before.split())
            assert watch.end() == (0, "")

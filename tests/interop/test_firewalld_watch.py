"""`pycni watch` beside Debian's firewalld, whose reload deletes rules of iptables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firewalld import Firewalld, why_no_firewalld
from tests.netns.attached_world import World
from tests.netns.watch_process import WatchProcess
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_firewalld()), reason=why_no_firewalld() or "it is there"),
]


def test_a_reload_is_repaired(host: Host, tmp_path: Path) -> None:
    outside = host.outside
    for name in ("firewalld", "world"):
        (tmp_path / name).mkdir()
    with Firewalld(host, tmp_path / "firewalld", "iptables") as firewalld:
        world = World(host, tmp_path / "world", "iptables")
        world.attach("c1", (8080, "tcp"))
        firewalld.trust("web0")
        with WatchProcess(world) as watch, world.sandboxes["c1"].serve(80):
            firewalld.cmd("--reload")
            done = watch.next()
            assert [each["state"] for each in done["attachments"]] == ["repaired"]
            wait_until(lambda: outside.sandbox.reaches(outside.host_address, 8080))
            assert watch.end() == (0, "")

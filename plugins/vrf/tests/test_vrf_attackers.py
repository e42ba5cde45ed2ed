"""A container can do nothing in its own namespace that keeps DEL from its end."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


def test_del_does_not_need_a_lock_that_the_container_holds(host: Host) -> None:
    sandbox = host.sandbox("c1")
    conf = {"cniVersion": "1.0.0", "name": "two", "type": "vrf", "vrfname": "blue"}
    with Path(f"/proc/{host.pid}/root{sandbox.path}").open(encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        answer = host.plugin("vrf", "DEL", conf, netns=sandbox, ifname="net1")
    answer.must()
    assert "going on without the lock: could not lock /run/netns/c1" in answer.stderr

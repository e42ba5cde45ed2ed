"""A launcher that is killed at any moment of an ADD: its worker goes at once, and a DEL leaves nothing."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from cni.warm import control
from tests.warm.test_warm_deaths import start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from cni.testing import Sandbox
    from cni.testing.snapshot import Snapshot
    from tests.warm.conftest import WarmHost

BASE = {"cniVersion": "1.0.0", "name": "n"}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
KILLS = 40
# What was promised, and how many of the kills may miss it on a machine that has much else to do.
GONE_WITHIN_S = 0.1
MAY_BE_LATE = 0.3


class Attachment:
    """A container that is attached by two plugins, either of which may be killed."""

    def __init__(self, host: WarmHost, backend: str) -> None:
        self.host = host
        self.sandbox: Sandbox = host.sandbox("c1")
        ipam = {"type": "host-local", "subnet": "10.22.0.0/16"}
        bridge = {"type": "bridge", "isGateway": True, "ipMasq": True, "ipMasqBackend": backend, "ipam": ipam}
        self.bridge = BASE | bridge
        self.portmap: dict[str, Any] = BASE | {"type": "portmap", "backend": backend, "runtimeConfig": PORTS}
        self.late = 0
        self.killed = 0

    def add(self) -> None:
        result = self.host.plugin("bridge", "ADD", self.bridge, netns=self.sandbox).must()
        self.portmap["prevResult"] = result

    def delete(self) -> None:
        for conf in (self.portmap, self.bridge):
            self.host.plugin(conf["type"], "DEL", conf, netns=self.sandbox).must()

    def time(self, conf: dict[str, Any]) -> float:
        """Give the seconds that an ADD takes when it is not killed."""
        began = time.monotonic()
        out, _ = self._start(conf).communicate(timeout=20)
        took = time.monotonic() - began
        assert "ips" in json.loads(out)
        return took

    def kill(self, conf: dict[str, Any], after_s: float) -> None:
        """Start an ADD and kill it; tells for itself how that went."""
        [server] = self.host.call(control.find)
        launcher = self._start(conf)
        time.sleep(after_s)
        workers = control.children(server.pid)
        launcher.kill()
        is_in_time = _is_one_gone(workers, GONE_WITHIN_S)
        launcher.communicate()
        self.delete()
        killed = self.host.log().count("was ended by signal 9")
        self.late += not is_in_time and killed > self.killed
        self.killed = killed

    def _start(self, conf: dict[str, Any]) -> subprocess.Popen[str]:
        return start(self.host, conf["type"], conf, self.sandbox.path)


def _is_one_gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        # One that has ended has no root any more, be it waited for or not.
        if not all(Path(f"/proc/{pid}/root").exists() for pid in pids):
            return True
        time.sleep(0.001)
    return False


def _assert_nothing_is_left(attachment: Attachment, before: Snapshot) -> None:
    assert before.differences(attachment.host.snapshot()) == []


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_cleans_up_after_an_add_that_was_killed_anywhere(
    warm_host: WarmHost, backend: str, record_property: Callable[[str, object], None]
) -> None:
    """The DEL comes at once, as a runtime's does. A worker that ends in the middle of a call is logged."""
    attachment = Attachment(warm_host, backend)
    took: dict[str, list[float]] = {"bridge": [], "portmap": []}
    attachment.add()
    attachment.delete()
    for _ in range(4):
        took["bridge"].append(attachment.time(attachment.bridge))
        took["portmap"].append(attachment.time(attachment.portmap))
        attachment.delete()
    before = warm_host.snapshot()
    for step in range(KILLS):
        if step % 2:
            attachment.add()
        conf = attachment.portmap if step % 2 else attachment.bridge
        after_s = median(took[conf["type"]]) * random.uniform(0.2, 1.1)  # noqa: S311 - any moment will do
        attachment.kill(conf, after_s)
        if step % 10 == 9:
            _assert_nothing_is_left(attachment, before)
    figures = {"kills": KILLS, "of them in the middle of ADD": attachment.killed, "late": attachment.late}
    record_property("figures", ("launchers killed", backend, figures))
    assert attachment.killed >= 10
    assert attachment.late <= attachment.killed * MAY_BE_LATE
    assert len(warm_host.servers()) == 1

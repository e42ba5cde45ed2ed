"""A launcher is killed at any moment of an ADD: its worker ends at once, and a DEL leaves nothing."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.warm import control
from tests.support import scene
from tests.support.patience import patience
from tests.warm.test_warm_deaths import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Sandbox
    from cni.testing.snapshot import Snapshot
    from tests.warm.conftest import WarmHost

BASE = {"cniVersion": "1.0.0", "name": "n"}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
# How many kills must hit in the middle, how many may be tried for that.
HITS, TRIES = 20, 160
# What was promised, and how many of the kills may miss it on a machine that has much else to do.
GONE_WITHIN_S = 0.1
MAY_BE_LATE = 0.3


class Attachment:
    """A container that is attached by two plugins, either of which may be killed."""

    def __init__(self, host: WarmHost, backend: str) -> None:
        self.host = host
        self.sandbox: Sandbox = host.sandbox("c1")
        ipam = {"type": scene.IPAM, "subnet": "10.22.0.0/16"}
        bridge = {
            "type": scene.INTERFACE,
            "isGateway": True,
            "ipMasq": True,
            "ipMasqBackend": backend,
            "ipam": ipam,
        }
        self.bridge: dict[str, Any] = BASE | bridge
        self.portmap: dict[str, Any] = BASE | {
            "type": scene.PORTS,
            "backend": backend,
            "runtimeConfig": PORTS,
        }
        self.late = 0
        self.killed = 0
        self._after_s = {"bridge": 0.008, scene.PORTS: 0.008}

    def add(self) -> None:
        result = self.host.plugin(scene.INTERFACE, "ADD", self.bridge, netns=self.sandbox).must()
        self.portmap["prevResult"] = result

    def delete(self) -> None:
        for conf in (self.portmap, self.bridge):
            self.host.plugin(str(conf["type"]), "DEL", conf, netns=self.sandbox).must()

    def kill(self, conf: dict[str, Any]) -> None:
        """Start an ADD, kill it, and record the outcome."""
        plugin = conf["type"]
        [server] = self.host.call(control.find)
        launcher = start(self.host, plugin, conf, self.sandbox.path)
        time.sleep(self._after_s[plugin] * random.uniform(0.7, 1.3))  # noqa: S311 - any moment will do
        workers = control.children(server.pid)
        launcher.kill()
        is_in_time = _is_one_gone(workers, GONE_WITHIN_S)
        launcher.communicate()
        self.delete()
        killed = self.host.log().count("was killed by signal 9")
        if killed > self.killed:
            self.killed = killed
            self.late += not is_in_time
        else:
            # Sooner if it was done already, later if it had not been begun.
            self._after_s[plugin] *= 0.8 if launcher.returncode == 0 else 1.2


def _is_one_gone(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + patience(within_s)
    while time.monotonic() < deadline:
        # One that has ended has no root any more, be it waited for or not.
        if not all(Path(f"/proc/{pid}/root").exists() for pid in pids):
            return True
        time.sleep(0.001)
    return False


def _assert_nothing_is_left(attachment: Attachment, before: Snapshot) -> None:
    assert before.differences(attachment.host.snapshot()) == []


@pytest.mark.long
@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_del_cleans_up_after_an_add_that_was_killed_anywhere(
    warm_host: WarmHost, backend: str, record_property: Callable[[str, object], None]
) -> None:
    """The DEL comes at once, as a runtime's does. A worker that ends in the middle of a call is logged."""
    attachment = Attachment(warm_host, backend)
    attachment.add()
    attachment.host.plugin(scene.PORTS, "ADD", attachment.portmap, netns=attachment.sandbox).must()
    attachment.delete()
    before = warm_host.snapshot()
    tries = 0
    # Beside a load the moment of an ADD is hit less often.
    while attachment.killed < HITS and tries < patience(TRIES):
        tries += 1
        if tries % 2:
            attachment.add()
        attachment.kill(attachment.portmap if tries % 2 else attachment.bridge)
        if tries % 10 == 0:
            _assert_nothing_is_left(attachment, before)
    _assert_nothing_is_left(attachment, before)
    figures = {"kills": tries, "of them in the middle of ADD": attachment.killed, "late": attachment.late}
    record_property("figures", ("launchers killed", backend, figures))
    assert attachment.killed >= HITS
    assert attachment.late <= attachment.killed * MAY_BE_LATE
    assert len(warm_host.servers()) == 1

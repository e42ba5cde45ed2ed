"""DEL while an ADD whose launcher was killed still publishes: its worker ends when the kernel has done so.

A process that holds the lock of the claim takes the place of that ADD.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cni.testing.wired import Wired

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from cni.testing import Answer, Host
    from cni.testing.snapshot import Snapshot

HAS_ENDED = "/run/has-ended"


class Net:
    """A network whose container publishes a port; `before` is the host before that."""

    def __init__(self, host: Host, backend: str) -> None:
        self._wired = Wired(host)
        self._container = self._wired.container()
        self._backend = backend
        self.host = host
        # Tables, chains and rules that all containers share stay.
        self.call("ADD").must()
        self.call("DEL").must()
        self.before: Snapshot = host.snapshot()
        self.call("ADD").must()

    def call(self, verb: str) -> Answer:
        mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
        keys = {"backend": self._backend, "runtimeConfig": {"portMappings": [mapping]}}
        return self._wired.call("portmap", verb, self._container, keys)

    @contextmanager
    def publishing(self, then: str) -> Iterator[subprocess.Popen[str]]:
        """Hold the lock of the claim until a shell has run `then`."""
        [claim] = self.host.run(["sh", "-c", "ls /run/pycni/hostports/by-owner/*"]).split()
        argv = ["flock", "--no-fork", claim, "sh", "-c", f"echo; {then}"]
        with self.host.place.popen(argv) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n"
            yield process
            process.kill()


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_del_waits_for_it(host: Host, backend: str) -> None:
    net = Net(host, backend)
    with net.publishing(f"sleep 0.3; touch {HAS_ENDED}"):
        net.call("DEL").must()
        host.run(["rm", HAS_ENDED])
    assert net.before.differences(host.snapshot()) == []


def test_del_does_not_wait_for_ever(host: Host) -> None:
    net = Net(host, "nftables")
    with net.publishing("exec sleep 600") as process:
        net.call("DEL").must()
        assert process.poll() is None
    assert net.before.differences(host.snapshot()) == []

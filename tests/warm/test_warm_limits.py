"""Soft limits of the caller that starts a server do not bind the calls of others."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

KINDS = ("CORE", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RTPRIO", "SIGPENDING", "STACK")
STACK = 8 << 20


def _limits(pid: int) -> dict[str, tuple[int, int]]:
    return {kind: resource.prlimit(pid, getattr(resource, f"RLIMIT_{kind}")) for kind in KINDS}


def test_soft_limits_of_the_first_caller_are_not_inherited(warm_host: WarmHost) -> None:
    lowered = "ulimit -S -n 300; ulimit -S -s 1024; ulimit -S -l 64; ulimit -S -i 1000; ulimit -S -q 1000"
    script = f"{lowered}; ulimit -S -u 2000; ulimit -S -c unlimited; exec {warm_host.bindir}/{scene.LOOPBACK}"
    warm_host.run(["bash", "-c", script], env=BARE_ENV | {"CNI_COMMAND": "VERSION"})
    [server] = warm_host.call(control.find)
    ours = _limits(0)
    for pid in [server.pid, *control.children(server.pid)]:
        found = _limits(pid)
        for kind in ("MEMLOCK", "MSGQUEUE", "NOFILE", "NPROC", "SIGPENDING"):
            assert found[kind] == (ours[kind][1], ours[kind][1])
        # What a worker has read must not lie in a file.
        assert found["CORE"][0] == 0
        # An infinite one makes the kernel map libraries in another way.
        assert found["STACK"][0] == STACK

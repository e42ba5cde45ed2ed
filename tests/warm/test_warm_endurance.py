"""Memory and descriptors of server and worker do not grow over many calls. PYCNI_SOAK sets the number."""

from __future__ import annotations

import json
import os
import re
import subprocess
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.warm.conftest import WarmHost

CALLS = int(os.environ.get("PYCNI_SOAK", "500"))
WARM_UP = 100
BASE = {"cniVersion": "1.0.0", "name": "n"}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
# What a process may have grown by after the first calls, however many there were. A worker's collector
# lets 20,000 objects gather, so that it grows for some two thousand calls.
GROWTH_KIB, GROWTH_OF_WORKER_KIB = 700, 6_000


def _chain(backend: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configurations of two plugins that are called one after the other."""
    bridge = {
        "type": scene.INTERFACE, "isGateway": True, "ipMasq": True, "ipMasqBackend": backend,
        "ipam": {"type": scene.IPAM, "subnet": "10.22.0.0/16"},
    }  # fmt: skip
    return BASE | bridge, BASE | {"type": scene.PORTS, "backend": backend, "runtimeConfig": PORTS}


class _Runtime:
    """Call plugins one by one. The result of the first ADD is the prevResult of the next."""

    def __init__(self, bindir: Path) -> None:
        self._bindir = bindir
        self.calls = 0

    def attach_and_detach(self, backend: str, container_id: str) -> None:
        bridge, portmap = _chain(backend)
        known = {"prevResult": self._call("ADD", bridge, container_id)}
        ports = portmap | {"prevResult": self._call("ADD", portmap | known, container_id)}
        for verb, conf in [
            ("CHECK", bridge | known),
            ("CHECK", ports),
            ("VERSION", bridge),
            ("DEL", ports),
            ("DEL", bridge | known),
        ]:
            self._call(verb, conf, container_id)

    def _call(self, verb: str, conf: dict[str, Any], container_id: str) -> Any:
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container_id, "CNI_NETNS": "/run/netns/c1",
            "CNI_IFNAME": "eth0", "CNI_PATH": str(self._bindir),
        }  # fmt: skip
        done = subprocess.run(
            [self._bindir / conf["type"]],
            input=json.dumps(conf),
            capture_output=True,
            text=True,
            env=BARE_ENV | env,
            check=False,
        )
        assert done.returncode == 0, (verb, conf, done.stdout)
        self.calls += 1
        return json.loads(done.stdout or "null")


def _is_idle() -> bool:
    [server] = control.find()
    return control.status(server).get("busy") == 0


def _call_often(bindir: Path, name: str, at_least: int) -> int:
    """Attach and detach containers with both backends in turn. Return the number of calls."""
    runtime = _Runtime(bindir)
    backends = cycle(["nftables", "iptables"])
    number = 0
    while runtime.calls < at_least:
        runtime.attach_and_detach(next(backends), f"{name}{number}")
        number += 1
        # Else a busy machine needs one more worker for the next call.
        wait_until(_is_idle)
    return runtime.calls


def _figures(pid: int) -> tuple[int, int, int]:
    """Return a process's own memory in KiB and the numbers of open files and threads."""
    status = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(status["RssAnon"]), files, int(status["Threads"])


def _busiest(server: int) -> int:
    """Return the process ID of the worker with the most run time."""

    def ticks(pid: int) -> int:
        # proc(5), stat: utime and stime, behind the name in brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    return max(control.children(server), key=ticks)


@pytest.mark.long
def test_many_calls_leave_memory_and_descriptors_flat(
    warm_host: WarmHost, record_property: Callable[[str, object], None]
) -> None:
    warm_host.settings(workers=1, calls=100_000)
    warm_host.sandbox("c1")
    calls = warm_host.call(_call_often, warm_host.bindir, "a", WARM_UP)
    [server] = warm_host.servers()
    # When all threads of the last call have ended.
    assert warm_host.status()["busy"] == 0
    worker = _busiest(server)
    memory, files, threads = _figures(server)
    own_memory, *own = _figures(worker)
    calls += warm_host.call(_call_often, warm_host.bindir, "b", CALLS)
    status = warm_host.status()
    memory_later, files_later, threads_later = _figures(server)
    own_memory_later, *own_later = _figures(worker)
    growth = {
        "calls": calls,
        "workers made": status["workers_made"],
        "KiB of the server at first": memory,
        "KiB more": memory_later - memory,
        "KiB of the worker at first": own_memory,
        "KiB more of it": own_memory_later - own_memory,
    }
    record_property("figures", ("endurance", "chain of both backends", growth))
    assert warm_host.servers() == [server]
    assert (threads, threads_later) == (1, 1)
    # A new worker at a busy moment brings a socket that is kept for the next one in its place.
    assert files_later - files <= 6
    assert memory_later - memory < GROWTH_KIB
    assert own_later == own
    assert own_memory_later - own_memory < GROWTH_OF_WORKER_KIB
    assert status["requests"] == calls
    # Now and then a spare one, when a call comes while traces of the last one are looked for.
    assert status["workers_made"] <= 6 + calls // 1000
    assert "the last call changed" not in warm_host.log()

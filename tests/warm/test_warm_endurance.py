"""After many calls the server is as it was: memory, descriptors, workers. PYCNI_SOAK sets how many."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from cni.testing.place import BARE_ENV
from cni.warm import control

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

CALLS = int(os.environ.get("PYCNI_SOAK", "500"))
CONF = {
    "cniVersion": "1.0.0", "name": "n", "type": "host-local",
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}  # fmt: skip
PREVIOUS = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}
GROWTH_KIB = 700


def _call_often(bindir: Path, count: int) -> None:
    env = BARE_ENV | {"CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "e", "CNI_PATH": str(bindir)}
    verbs = ["ADD", "CHECK", "VERSION", "DEL"]
    for number in range(count):
        verb = verbs[number % len(verbs)]
        done = subprocess.run(
            [bindir / "host-local"],
            input=json.dumps(
                CONF | {"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}}
            ),
            capture_output=True,
            text=True,
            env=env | {"CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{number // len(verbs)}"},
            check=False,
        )
        assert verb == "CHECK" or done.returncode == 0, (verb, done.stdout)


def _figures(pid: int) -> tuple[int, int, int]:
    """Give a process's own memory in KiB and the numbers of open files and threads."""
    status = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(status["RssAnon"]), files, int(status["Threads"])


def test_many_calls_leave_memory_and_descriptors_flat(warm_host: WarmHost) -> None:
    warm_host.call(_call_often, warm_host.bindir, 100)
    [server] = warm_host.servers()
    memory, files, threads = _figures(server)
    warm_host.call(_call_often, warm_host.bindir, CALLS)
    later, files_later, threads_later = _figures(server)
    assert warm_host.servers() == [server]
    # A new worker at a busy moment brings a socket that is kept for the next one in its place.
    assert files_later - files <= 6
    assert threads_later == threads == 1
    assert later - memory < GROWTH_KIB
    workers = [_figures(pid) for pid in control.children(server)]
    assert len({files for _, files, _ in workers}) == 1
    assert all(own < memory + 4_000 for own, _, _ in workers)
    assert warm_host.status()["requests"] == CALLS + 100

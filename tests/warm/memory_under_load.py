"""Print what the warm server of a bundle needs while 8 loops attach and detach: bridge, host-local, portmap.

python -m tests.warm.memory_under_load dist/bundle
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.state import executables
from cni.testing import Host, warm
from cni.warm import control
from plugin_table import declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPS = 8
SECONDS = 30


def chain(number: int) -> list[dict[str, Any]]:
    """Return the configurations of a network in the order of ADD; each loop publishes another port."""
    base = {"cniVersion": "1.0.0", "name": "net"}
    ipam = {"type": scene.IPAM, "subnet": "10.88.0.0/16"}
    ports = [{"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}]
    return [
        base
        | {
            "type": scene.INTERFACE,
            "isGateway": True,
            "ipMasq": True,
            "ipMasqBackend": "nftables",
            "ipam": ipam,
        },
        base | {"type": scene.PORTS, "backend": "nftables", "runtimeConfig": {"portMappings": ports}},
    ]


def loop(host: Host, number: int, until: float) -> None:
    """Attach and detach one container until a time on the monotonic clock."""
    sandbox, container = host.sandbox(f"c{number}"), f"c{number}"
    bridge, portmap = chain(number)
    while time.monotonic() < until:
        added = host.plugin(scene.INTERFACE, "ADD", bridge, netns=sandbox, container_id=container)
        before = {"prevResult": added.must()}
        for plugin, verb in ((portmap, "ADD"), (portmap, "DEL"), (bridge, "DEL")):
            host.plugin(plugin["type"], verb, plugin | before, netns=sandbox, container_id=container).must()


def figures(host: Host) -> Iterator[dict[str, Any]]:
    """Return the states of the servers of a host."""
    for server in host.call(control.find):
        yield host.call(control.status, server)


def measure(bundle: Path) -> None:
    """Print the memory at first, once in a second, and when it is at rest again."""
    with Host(Path("/run/bin")) as host:
        warm.set_up(host.place)
        host.run(["mkdir", "/run/bin"])
        build = (bundle / "build").read_text().strip()
        program = executables.launcher((bundle / "launcher").read_bytes(), str(bundle.resolve()), build)
        host.call(executables.put, host.bindir, list(packages(declared())), program)
        host.plugin(scene.LOOPBACK, "VERSION", "").must()
        until = time.monotonic() + SECONDS
        children = []
        for number in range(LOOPS):
            children.append(os.fork())
            if children[-1] == 0:
                loop(host, number, until)
                os._exit(0)
        while time.monotonic() < until + 40:
            for each in figures(host):
                f"{each.get('pss_kib', 0) / 1024:.1f} MiB, {len(each.get('workers', []))} workers"
            time.sleep(3)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    measure(Path(sys.argv[1]))

"""The networks of the churn, one for each interface plugin and firewall backend, and their sandboxes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.runtime.network import parse_network
from cni.testing.namespaces import entered
from cni.testing.place import BARE_ENV
from tests.support import scene, subjects
from tests.support.subjects import BACKENDS, chain, ipam, subjects_here

if TYPE_CHECKING:
    from cni.runtime.network import Network

SANDBOXES = Path("/run/sandboxes")
IFNAME = "eth0"
_FIRST_PORT = 20_000


def _conflist(number: int, subject: str, backend: str) -> Network:
    name = f"churn-{subject}-{backend}"
    # Runtimes attach lo by a network of its own.
    confs = [conf for conf in chain(subject, backend, full=False) if conf["type"] != scene.LOOPBACK]
    plugins = [_part(number, conf) for conf in confs]
    conflist = {"cniVersion": "1.1.0", "name": name, "plugins": plugins}
    return parse_network(json.dumps(conflist).encode(), f"{name}.conflist")


def _part(number: int, conf: dict[str, Any]) -> dict[str, Any]:
    """Return a plugin's configuration with what must differ between networks."""
    if conf.get("ipam") == ipam(scene.IPAM):
        conf["ipam"] = {"type": scene.IPAM, "ranges": [[{"subnet": f"10.{60 + number}.0.0/22"}]]}
    if conf["type"] == scene.INTERFACE:
        conf.update(bridge=f"churn{number}", hairpinMode=True)
    if conf["type"] == scene.PORTS:
        del conf["runtimeConfig"]
        conf["capabilities"] = {"portMappings": True}
    return conf


# A device can be in one container at a time.
_SUBJECTS = [name for name in subjects_here(only_with_state=True) if not subjects.PLUGINS[name].needs_device]
NETWORKS = [_conflist(number, *each) for number, each in enumerate(product(_SUBJECTS, BACKENDS))]
PLUGINS = {plugin.type for network in NETWORKS for plugin in network.plugins}


def runtime(bindir: Path) -> Runtime:
    """Return what runs plugins as a runtime does."""
    return Runtime([str(bindir)], BARE_ENV)


def told(container_id: str, sandbox: str) -> RuntimeArgs:
    """Return what a runtime says of a container in a sandbox, "3.0": its port is the first number's."""
    port = _FIRST_PORT + int(sandbox.partition(".")[0])
    ports = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
    capabilities: dict[str, Any] = {"portMappings": ports}
    return RuntimeArgs(container_id, str(SANDBOXES / sandbox), IFNAME, (), capabilities)


def make_sandbox(sandbox: str) -> None:
    """Make a network namespace at its path, which is never used again."""
    path = SANDBOXES / sandbox
    path.touch()
    subprocess.run(["/usr/bin/unshare", f"--net={path}", "/bin/true"], check=True)


def drop_sandbox(sandbox: str) -> None:
    """Take the namespace away with all that is in it, as a runtime that has crashed does."""
    path = SANDBOXES / sandbox
    subprocess.run(["/usr/bin/umount", "--lazy", str(path)], check=True)
    path.unlink()


def links_in_sandboxes() -> list[str]:
    """Return all links but lo, as "sandbox link"."""
    found = []
    for path in SANDBOXES.iterdir():
        with entered(str(path)):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
            names = [line.partition(":")[0].strip() for line in lines]
        found += [f"{path.name} {name}" for name in names if name != "lo"]
    return found


def prepare(bindir: Path, sandboxes: int) -> None:
    """Make the sandboxes, and what the first attachment of each network makes for all."""
    SANDBOXES.mkdir()
    for number in range(sandboxes):
        make_sandbox(f"{number}.0")
    use_each_network(bindir, "0.0")


def use_each_network(bindir: Path, sandbox: str) -> None:
    """Attach a container to each network and detach it, which makes what all attachments of a network share.

    GC removes what is for the gateway of a network that has lost its last container.
    """
    for network in NETWORKS:
        container = told("first", sandbox)
        runtime(bindir).add(network, container)
        runtime(bindir).delete(network, container)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def name(pid: int) -> str:
    """Return a process's name, "" when it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kill(pid: int, parent: int) -> bool:
    """Kill a process that is still this one's child; False if it is not."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # From here on the number cannot be another process's.
        if pid not in children(parent):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True

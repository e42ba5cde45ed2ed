"""Print what a reload of the firewall costs containers while `pycni watch` runs: bridge, portmap, firewall.

python -m tests.warm.firewall_reload dist/bundle 10 40 100

Each container has one published port, and addresses of both IP versions. A reload deletes all rules of
nftables, or of iptables in tables nat and filter. The time ends with the last change that brings rules back.
The rules are compared with those before. CPU time is that of the watch and of all plugins until then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni.firewall import nft
from cni.kernel import announcements
from cni.kernel.announcements import Listener
from cni.runtime import conflists
from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.state import executables
from cni.testing import Host, warm
from cni.testing.place import BARE_ENV
from cni.warm import control
from plugin_table import declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Sequence

BINDIR = Path("/run/bin")
FILTER = "firewall"
EMPTY = "printf '*nat\\nCOMMIT\\n*filter\\nCOMMIT\\n' | "
RELOADS = {
    "nftables": "nft flush ruleset",
    "iptables": f"{EMPTY} iptables-restore; {EMPTY} ip6tables-restore",
}
# No change for so long: all is repaired.
QUIET_S = 3
ROUNDS = 3


def conflist(backend: str) -> str:
    """Return the network's file."""
    ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.9.0.0/16"}], [{"subnet": "fd09::/64"}]]}
    bridge = {"type": scene.INTERFACE, "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": backend}
    plugins = [bridge | {"ipam": ipam}, scene.ports(backend=backend), {"type": FILTER, "backend": backend}]
    return json.dumps({"cniVersion": "1.1.0", "name": "web", "plugins": plugins})


def attach(count: int) -> None:
    """Attach containers, each with a published port."""
    runtime = Runtime([str(BINDIR)], BARE_ENV)
    network = conflists.find(Path("/etc/cni/net.d"), "web")
    for number in range(count):
        ports = {"portMappings": [{"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}]}
        runtime.add(network, RuntimeArgs(f"c{number}", f"/run/netns/c{number}", "eth0", (), ports))


def cpu_s(watch: int) -> float:
    """Return the CPU time of the watch and of the servers, their workers and children."""
    ticks = 0
    servers = [each.pid for each in control.find()]
    for pid in (watch, *servers, *(child for each in servers for child in control.children(each))):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def reload(command: str, watch: int) -> tuple[float, float, int]:
    """Delete the rules, and wait until they change no more. Return time, CPU time and transactions."""
    listener = Listener(announcements.NETFILTER, announcements.NFTABLES)
    subprocess.run(["/bin/sh", "-c", command], check=True)
    start_s = end_s = time.monotonic()
    before = used = cpu_s(watch)
    transactions = 0
    while time.monotonic() < end_s + QUIET_S:
        if messages := listener.read().messages:
            transactions += sum(kind == nft.kind(15) for kind, _ in messages)
            end_s, used = time.monotonic(), cpu_s(watch)
        time.sleep(0.01)
    return end_s - start_s, used - before, transactions


def measure(bundle: Path, backend: str, count: int) -> None:
    """Print the figures of one backend with so many containers."""
    with Host(BINDIR) as host:
        warm.set_up(host.place)
        build = (bundle / "build").read_text().strip()
        program = executables.launcher((bundle / "launcher").read_bytes(), str(bundle.resolve()), build)
        host.run(["mkdir", str(BINDIR)])
        host.call(executables.put, BINDIR, list(packages(declared())), program)
        host.run(["install", "-D", "/dev/stdin", "/etc/cni/net.d/web.conflist"], conflist(backend))
        host.batch(f"netns add c{number}" for number in range(count))
        host.call(attach, count)
        before = set(host.snapshot().rules)
        env = {"PATH": BARE_ENV["PATH"], "CNI_PATH": str(BINDIR)}
        watch = host.place.popen([str(bundle.resolve() / "pycni"), "watch"], env=env)
        assert watch.stdout
        watch.stdout.readline()
        for _ in range(ROUNDS):
            seconds, cpu, transactions = host.call(reload, RELOADS[backend], watch.pid)
            same = "" if set(host.snapshot().rules) == before else ", and NOT as before"
            print(  # noqa: T201 - a report
                f"{backend}, {count} containers: whole after {seconds:.2f} s, {cpu:.2f} s of CPU time,"
                f" {transactions} transactions{same}",
                flush=True,
            )
        watch.kill()
        watch.communicate()


def main(bundle: Path, counts: Sequence[int]) -> None:
    """Measure both backends."""
    for backend in RELOADS:
        for count in counts:
            measure(bundle, backend, count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(int, sys.argv[2:])) or [10, 40, 100])

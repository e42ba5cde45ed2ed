"""A host with a bridge and a DHCP server behind it, and the helper's processes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel.netns import open_netns
from cni.service.guard import OPTION
from cni.state import attachments
from cni.state.attachments import Key
from cni.testing.network import Network
from cni_dhcp import lease as leases
from cni_dhcp import records

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from cni.testing import Host
    from cni_dhcp.lease import Lease

LEASES = "/run/dnsmasq.leases"
SERVER = "10.77.0.1"
KEY = Key("dhcp", "net1", "c1", "eth0")
WITHIN_S = 30


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what a condition gives as soon as it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return value


class DhcpHost:
    """A host with a bridge, and a DHCP server in a namespace of its own behind it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.server = host.sandbox("server")
        host.run(["ip", "link", "add", "br0", "type", "bridge"])
        host.run(["ip", "link", "add", "tosrv", "type", "veth", "peer", "name", "eth0", "netns", "server"])
        host.run(["ip", "link", "set", "tosrv", "master", "br0", "up"])
        host.run(["ip", "link", "set", "br0", "up"])
        self.server.run(["ip", "addr", "add", f"{SERVER}/24", "dev", "eth0"])
        self.server.run(["ip", "link", "set", "eth0", "up"])
        self.network = Network(host, ipam={"type": "dhcp", "timeoutSeconds": 5})
        self._process: subprocess.Popen[str] | None = None

    def serve(self, *options: str) -> None:
        """Start the server, in place of an earlier one."""
        self.stop()
        usual = ["--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=eth0", "--no-ping"]
        range_ = "--dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0,1h"
        files = [f"--dhcp-leasefile={LEASES}", "--pid-file=", "--user=root", "--dhcp-authoritative"]
        self._process = self.server.place.popen(["dnsmasq", *usual, range_, *files, *options])
        wait_for(lambda: ":67 " in self.server.run(["ss", "-lun"]))

    def stop(self) -> None:
        """End the server."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def leased(self) -> str:
        """Return the server's own list of leases."""
        return self.host.run(["sh", "-c", f"cat {LEASES} 2>/dev/null || true"])

    def helpers(self) -> list[int]:
        """Return the process IDs of this host's helpers."""
        return self._processes("pycni-helper")

    def guards(self) -> list[int]:
        """Return the process IDs of this host's guards."""
        return self._processes("pycni-guard")

    def kill(self) -> None:
        """End guards and helpers for good: a guard first, and then what its helper has become."""
        while pids := self.guards() + self.helpers():
            for each in pids:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.01)

    def _processes(self, name: str) -> list[int]:
        found = []
        mine = Path(f"/proc/{self.host.pid}/ns/mnt").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_helper = OPTION.encode() in (process / "cmdline").read_bytes().split(b"\0")
                is_named = (process / "comm").read_text().strip() == name
                if is_helper and is_named and (process / "ns/mnt").readlink() == mine:
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    def record(self) -> Lease:
        """Return the lease on record."""
        saved = self.host.call(attachments.load, KEY)
        assert saved
        lease = leases.read(saved.values)
        assert lease
        return lease

    def age(self, **changes: Any) -> None:
        """Put the times of the lease on record into the past, and let the helper look at it."""
        self.host.call(_age, changes)


def _age(changes: dict[str, Any]) -> None:
    lease = leases.read(attachments.load(KEY).values)  # type: ignore[union-attr]
    assert lease
    with open_netns("/run/netns/c1") as ns:
        records.save(KEY, lease._replace(**changes), ns)
    records.HELPER.wake()


@pytest.fixture
def dhcp(host: Host) -> Iterator[DhcpHost]:
    """Yield the host with a running server; end the server and the helpers."""
    dhcp = DhcpHost(host)
    try:
        dhcp.serve()
        yield dhcp
    finally:
        dhcp.stop()
        dhcp.kill()

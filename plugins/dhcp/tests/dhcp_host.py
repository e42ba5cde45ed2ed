"""A host with a bridge and a DHCP server behind it, and the helper's processes."""

from __future__ import annotations

import os
import re
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

    from cni.testing import Host, Sandbox
    from cni.testing.snapshot import Snapshot
    from cni_dhcp.lease import Lease

LEASES, LOG = "/run/dnsmasq.leases", "/run/dnsmasq.log"
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

    def serve(self, *options: str, first: int = 100, last: int = 150, place: Sandbox | None = None) -> None:
        """Start the server, in place of an earlier one; `place` replaces the namespace."""
        self.stop()
        place = place or self.server
        usual = ["--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=eth0", "--no-ping"]
        range_ = f"--dhcp-range=10.77.0.{first},10.77.0.{last},255.255.255.0,1h"
        files = [f"--dhcp-leasefile={LEASES}", "--pid-file=", "--user=root", "--dhcp-authoritative"]
        log = ["--log-dhcp", f"--log-facility={LOG}"]
        self._process = place.place.popen(["dnsmasq", *usual, range_, *files, *log, *options])
        wait_for(lambda: ":67 " in place.run(["ss", "-lun"]))

    def log(self) -> str:
        """Return the servers' log."""
        return self.host.run(["cat", LOG])

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

    def differences(self, before: Snapshot) -> list[str]:
        """Return what differs from a snapshot, but the servers' files and what helpers write at any time."""
        found = before.differences(self.host.snapshot())
        return [each for each in found if not re.search(r"/run/dnsmasq\.|/pycni/helpers/\S+\.status ", each)]

    def record(self) -> Lease:
        """Return the lease on record."""
        saved = self.host.call(attachments.load, KEY)
        assert saved
        lease = leases.read(saved.values)
        assert lease
        return lease

    def age(self, **changes: Any) -> None:
        """Change the lease on record, as its times, and let the helper do what is due."""
        self.host.call(_age, changes)

    def age_unseen(self, **changes: Any) -> None:
        """Change the lease on record, without a request to the helper."""
        self.host.call(_age, changes, is_asked=False)


def _age(changes: dict[str, Any], *, is_asked: bool = True) -> None:
    lease = leases.read(attachments.load(KEY).values)  # type: ignore[union-attr]
    assert lease
    with open_netns("/run/netns/c1") as ns:
        records.save(KEY, lease._replace(**changes), ns)
    if is_asked:
        records.HELPER.wake(until_done=True)


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

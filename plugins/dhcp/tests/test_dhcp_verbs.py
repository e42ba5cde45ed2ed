"""All verbs against a real dnsmasq behind a bridge: traffic, routes, renewal, release, and the helper's life."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.kernel.netns import open_netns
from cni.service.client import OPTION
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
WITHIN_S = 10


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
        found = []
        mine = os.readlink(f"/proc/{self.host.pid}/ns/mnt")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_helper = OPTION.encode() in (process / "cmdline").read_bytes().split(b"\0")
                if is_helper and os.readlink(process / "ns/mnt") == mine:
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

    def age(self, **times: float) -> None:
        """Put the times of the lease on record into the past, and let the helper look at it."""
        self.host.call(_age, times)


def _age(times: dict[str, float]) -> None:
    lease = leases.read(attachments.load(KEY).values)  # type: ignore[union-attr]
    assert lease
    with open_netns("/run/netns/c1") as ns:
        records.save(KEY, lease._replace(**times), ns)  # type: ignore[arg-type]
    records.HELPER.wake()


@pytest.fixture
def dhcp(host: Host) -> Iterator[DhcpHost]:
    """Yield a host with a running server; end the server and the helpers."""
    dhcp = DhcpHost(host)
    dhcp.serve()
    try:
        yield dhcp
    finally:
        dhcp.stop()
        for each in dhcp.helpers():
            os.kill(each, signal.SIGKILL)


def test_an_address_by_which_traffic_flows_and_its_release(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    assert attached.address.startswith("10.77.0.1")
    assert attached.answer.json["ips"][0]["gateway"] == SERVER
    assert attached.answer.json["routes"] == [{"dst": "0.0.0.0/0", "gw": SERVER}]
    with dhcp.server.serve(5000):
        assert attached.sandbox.dial(SERVER, 5000).address == attached.address
    assert f"{attached.address} " in dhcp.leased()
    assert dhcp.network.check(attached).must() == {}
    assert len(dhcp.helpers()) == 1
    for _ in range(2):
        dhcp.network.delete("c1")
    wait_for(lambda: attached.address not in dhcp.leased())


def test_the_same_container_gets_its_address_again(dhcp: DhcpHost) -> None:
    first = dhcp.network.add("c1")
    other = dhcp.network.add("c2")
    assert first.address != other.address
    # Its client identifier is the Go plugin's.
    assert b"\0c1/net1/eth0".hex(":") in dhcp.leased()
    first.sandbox.delete()
    dhcp.network.delete("c1")
    assert first.address in dhcp.leased()
    assert dhcp.network.add("c1").address == first.address

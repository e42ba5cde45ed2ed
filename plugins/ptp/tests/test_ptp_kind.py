"""The network list of kind: ptp, host-local and portmap, all three of this suite, with published ports."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import Command

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cni.testing import Host

V4, V6 = "10.244.0.0/24", "fd00:10:244::/64"
FAMILIES = {"IPv4": [V4], "IPv6": [V6], "dual stack": [V4, V6]}
FILE = "/etc/cni/net.d/10-kindnet.conflist"


def kindnet(subnets: list[str]) -> dict[str, Any]:
    """Return the list as kindnetd writes it."""
    routes = [{"dst": "::/0" if ":" in each else "0.0.0.0/0"} for each in subnets]
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": routes,
        "ranges": [[{"subnet": each}] for each in subnets],
    }
    return {
        "cniVersion": "0.3.1",
        "name": "kindnet",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam, "mtu": 1500},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


class Node:
    """A node of kind, and its pods that `pycni` attaches and detaches."""

    def __init__(self, host: Host, folder: Path, subnets: list[str]) -> None:
        self.host = host
        self.command = Command(folder, host.bindir, is_forked=True)
        host.run(["install", "-D", "-m", "644", "/dev/stdin", FILE], json.dumps(kindnet(subnets)))

    def run(self, verb: str, pod: str, *ports: int) -> subprocess.CompletedProcess[str]:
        listed = [{"hostPort": each, "containerPort": 80, "protocol": "tcp"} for each in ports]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CAP_ARGS": json.dumps({"portMappings": listed})}
        return self.command.run(self.host.place, verb, "kindnet", f"/run/netns/{pod}", env=env)

    def attach(self, pod: str, *ports: int) -> list[str]:
        """Attach a pod and return its addresses."""
        result = json.loads(self.run("add", pod, *ports).stdout)
        return [each["address"].split("/")[0] for each in result["ips"]]


@pytest.mark.parametrize("subnets", FAMILIES.values(), ids=FAMILIES)
def test_pods_and_published_ports_have_their_traffic(host: Host, tmp_path: Path, subnets: list[str]) -> None:
    outside = host.outside
    node = Node(host, tmp_path, subnets)
    client, server = host.sandbox("client"), host.sandbox("server")
    own = node.attach("client")
    addresses = node.attach("server", 8080)
    # kindnetd routes between nodes.
    for each in subnets:
        via = outside.host_address6 if ":" in each else outside.host_address
        outside.sandbox.run(["ip", "route", "add", each, "via", via])
    with server.serve(80), outside.sandbox.serve(81):
        for source, address, subnet in zip(own, addresses, subnets, strict=True):
            is_6 = ":" in address
            node_address = outside.host_address6 if is_6 else outside.host_address
            other = outside.address6 if is_6 else outside.address
            assert client.dial(address, 80).address == source
            assert host.reaches(address, 80, timeout_s=3)
            assert outside.sandbox.dial(address, 80).address == other
            assert outside.sandbox.dial(node_address, 8080).address == other
            # portmap masquerades the pods' own subnet, for the pod that asks itself.
            assert client.dial(node_address, 8080).address == str(ip_network(subnet)[1])
            assert host.reaches(node_address, 8080, timeout_s=3)
            assert client.dial(other, 81).address == source
            assert server.dial(node_address, 8080).address == str(ip_network(subnet)[1])
        assert ":" in addresses[0] or host.reaches("127.0.0.1", 8080, timeout_s=3)


@pytest.mark.parametrize("subnets", FAMILIES.values(), ids=FAMILIES)
def test_nothing_remains_of_a_pod_that_was_detached(host: Host, tmp_path: Path, subnets: list[str]) -> None:
    node = Node(host, tmp_path, subnets)
    host.sandbox("first")
    node.attach("first", 8080)
    node.run("del", "first", 8080)
    host.sandbox("pod")
    before = host.snapshot()
    node.attach("pod", 8080)
    for _ in range(2):
        node.run("del", "pod", 8080)
    assert before.differences(host.snapshot()) == []

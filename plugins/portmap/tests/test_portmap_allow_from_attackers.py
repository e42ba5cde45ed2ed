"""Clients that are not in `allowFrom` try other ways to the published port."""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest

from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

backends = pytest.mark.parametrize("backend", ["iptables", "nftables"])
ALLOWED, OTHER = "192.0.2.77", "192.0.2.2"
# One more address of the host.
ELSEWHERE = "203.0.113.1"
PATIENCE_S = 5
ARRIVES_WITHIN_S = 60


class World:
    """A container that publishes port 8080 for one client outside.

    There are neighbours on its own bridge, and on another one that publishes a port as well.
    """

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.backend = backend
        self.net = Wired(host)
        self.other_net = Wired(host, "net2", "cni1", IPv4Network("10.23.0.0/16"), IPv6Network("fd00:23::/64"))
        self.client = host.outside.sandbox
        self.client.run(["ip", "address", "add", f"{ALLOWED}/24", "dev", "eth0"])
        self.target = self.net.container(1)
        self.neighbours = [self.net.container(2), self.other_net.container(8)]

    def publish(self, protocol: str) -> None:
        mapping = {"hostPort": 8080, "containerPort": 80, "protocol": protocol, "allowFrom": [ALLOWED]}
        self._add(self.net, self.target, mapping)
        open_port = {"hostPort": 9999, "containerPort": 99, "protocol": protocol}
        self._add(self.other_net, self.neighbours[1], open_port)

    def _add(self, net: Wired, container: Container, mapping: dict[str, object]) -> None:
        keys = {"backend": self.backend, "runtimeConfig": {"portMappings": [mapping]}}
        net.call("portmap", "ADD", container, keys).must()


def count_unheard(inside: Host | Sandbox) -> int:
    """Return how many UDP packets have come to ports where nothing listens."""
    lines = inside.run(["cat", "/proc/net/snmp"]).splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


@pytest.fixture
def world(host: Host, backend: str) -> World:
    return World(host, backend)


def refused(sandbox: Sandbox, address: str, protocol: str, source: str = "") -> bool:
    try:
        sandbox.dial(address, 8080, protocol, source=source, timeout_s=PATIENCE_S)
    except OSError:
        return True
    return False


@backends
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_no_other_address_of_the_host_lets_others_in(world: World, protocol: str) -> None:
    world.publish(protocol)
    world.client.run(["ip", "route", "add", "10.22.0.1/32", "via", "192.0.2.1"])
    world.host.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "eth0"])
    world.client.run(["ip", "route", "add", f"{ELSEWHERE}/32", "via", "192.0.2.1"])
    with world.target.sandbox.serve(80, protocol):
        for address in ("192.0.2.1", "10.22.0.1", ELSEWHERE):
            assert refused(world.client, address, protocol, OTHER)
            assert not refused(world.client, address, protocol, ALLOWED)
        # A socket of IPv6 that sends IPv4.
        assert refused(world.client, "::ffff:192.0.2.1", protocol, f"::ffff:{OTHER}")
        assert not refused(world.client, "::ffff:192.0.2.1", protocol, f"::ffff:{ALLOWED}")
        for each in (world.target, *world.neighbours):
            assert refused(each.sandbox, "192.0.2.1", protocol)
            assert refused(each.sandbox, ELSEWHERE, protocol)


@backends
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_neighbours_do_not_get_in_by_the_hosts_loopback_address(world: World, protocol: str) -> None:
    """`route_localnet`, which portmap sets for the host, lets packets to 127.0.0.1 in from the bridge."""
    world.publish(protocol)
    with world.target.sandbox.serve(80, protocol):
        for neighbour, net in zip(world.neighbours, (world.net, world.other_net), strict=True):
            forget_loopback(neighbour.sandbox, net.gateway)
            assert refused(neighbour.sandbox, "127.0.0.1", protocol, neighbour.address)


def forget_loopback(sandbox: Sandbox, gateway: str) -> None:
    """Send what goes to 127.0.0.1 to the gateway."""
    sandbox.run(["ip", "address", "delete", "127.0.0.1/8", "dev", "lo"])
    sandbox.run(["sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1"])
    sandbox.run(["ip", "route", "add", "127.0.0.1/32", "via", gateway])


@backends
def test_a_forged_sender_is_not_taken_for_the_host(world: World) -> None:
    """The host may use its ports; a neighbour sends as an address of the host, which needs no answer."""
    world.publish("udp")
    world.host.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "eth0"])
    world.client.run(["ip", "route", "add", f"{ELSEWHERE}/32", "via", "192.0.2.1"])
    links = ("all", "cni0", "cni1")
    world.host.run(["sysctl", "-q", "-w", *(f"net.ipv4.conf.{each}.rp_filter=0" for each in links)])
    for heard, (neighbour, net) in enumerate(
        zip(world.neighbours, (world.net, world.other_net), strict=True)
    ):
        forget_loopback(neighbour.sandbox, net.gateway)
        gateways = {world.net.gateway, world.other_net.gateway} - {net.gateway}
        # The kernel drops those with an address of a link of the host. The last one reaches the host: then
        # all of them have been there.
        for sender in ("127.0.0.1", "192.0.2.1", *gateways, "127.0.0.2"):
            neighbour.sandbox.run(["ip", "address", "add", f"{sender}/32", "dev", "eth0"])
            neighbour.sandbox.call(send_from, sender, ELSEWHERE)
        wait_until_unheard(world.host, heard + 1)
    assert count_unheard(world.target.sandbox) == 0
    world.client.call(send_from, ALLOWED, ELSEWHERE)
    wait_until_unheard(world.target.sandbox, 1)
    assert count_unheard(world.host) == len(world.neighbours)


def wait_until_unheard(inside: Host | Sandbox, count: int) -> None:
    deadline = time.monotonic() + ARRIVES_WITHIN_S
    while count_unheard(inside) != count:
        assert time.monotonic() < deadline, f"{count_unheard(inside)} packets have arrived, not {count}"
        time.sleep(0.02)


def send_from(sender: str, address: str) -> None:
    """Send one packet to port 8080, from a given address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((sender, 0))
        own.sendto(b"?", (address, 8080))

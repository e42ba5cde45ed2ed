"""Tracked connections to a port are forgotten, those and no others."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from cni.interface import layer3
from cni.kernel import conntrack, link
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.result import IpAddress
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

# Loopback addresses stand for those of a host; the rule is what makes the kernel track connections.
TRACK = "table inet track { chain out { type nat hook output priority 0; ct state new accept; }; }"
V4 = ["127.0.0.1", "127.0.0.2"]
V6 = ["fd01::1", "fd01::2"]


@pytest.fixture
def tracking(host: Host) -> Host:
    host.run(["nft", TRACK])
    # The kernel forgets unanswered flows after 30 s.
    host.run(["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_udp_timeout=600"])
    for address in V6:
        host.run(["ip", "addr", "add", f"{address}/128", "dev", "lo", "nodad"])
    host.call(_wait_until_received)
    return host


def _wait_until_received() -> None:
    with Netlink() as nl:
        layer3.wait_until_received(nl, link.get(nl, "lo"), [ip_interface(f"{each}/128") for each in V6])


def _send(host: Host, *addresses: str, port: int = 5353) -> None:
    def inside() -> None:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.sendto(b"?", (address, port))

    host.call(inside)


def _tracked(host: Host) -> list[str]:
    """Return "udp 127.0.0.1 5353" and so on: protocol, destination and port of each entry, as first seen."""
    shown = host.run(["cat", "/proc/net/nf_conntrack"])
    found = []
    for line in shown.splitlines():
        protocol = line.split()[2]
        dst, port = re.search(r"dst=(\S+) .*?dport=(\d+)", line).groups()  # type: ignore[union-attr] # always
        found.append(f"{protocol} {ip_address(dst)} {port}")
    return sorted(found)


def _flush(host: Host, host_ip: str = "", family: int = socket.AF_INET, port: int = 5353) -> int:
    address: IpAddress | None = ip_address(host_ip) if host_ip else None
    return host.call(conntrack.flush, "udp", port, address, family)


@pytest.mark.parametrize(("family", "addresses"), [(socket.AF_INET, V4), (socket.AF_INET6, V6)])
def test_all_connections_to_a_port_are_forgotten(
    tracking: Host, family: int, addresses: tuple[str, str]
) -> None:
    _send(tracking, *addresses)
    _send(tracking, *addresses, port=53)
    assert _flush(tracking, family=family) == 2
    assert _tracked(tracking) == [f"udp {address} 53" for address in addresses]


@pytest.mark.parametrize(("family", "addresses"), [(socket.AF_INET, V4), (socket.AF_INET6, V6)])
def test_only_those_to_a_host_ip_are_forgotten(
    tracking: Host, family: int, addresses: tuple[str, str]
) -> None:
    _send(tracking, *addresses)
    assert _flush(tracking, addresses[0], family) == 1
    assert _tracked(tracking) == [f"udp {addresses[1]} 5353"]


def test_an_unspecified_host_ip_means_all(tracking: Host) -> None:
    _send(tracking, *V4)
    assert _flush(tracking, "0.0.0.0") == 2  # noqa: S104 - what is tested


def test_the_other_family_and_the_other_protocol_stay(tracking: Host) -> None:
    _send(tracking, *V4, *V6)
    with tracking.serve(5353, "tcp"):
        tracking.dial("127.0.0.1", 5353, "tcp")
    assert _flush(tracking, V6[0], socket.AF_INET) == 0
    assert _flush(tracking) == 2
    assert _tracked(tracking) == ["tcp 127.0.0.1 5353", *(f"udp {address} 5353" for address in V6)]


def test_answers_from_the_port_do_not_count_as_connections_to_it(tracking: Host) -> None:
    def from_the_port() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 5353))
            client.sendto(b"?", ("127.0.0.1", 99))

    tracking.call(from_the_port)
    assert _flush(tracking) == 0
    assert _tracked(tracking) == ["udp 127.0.0.1 99"]


def test_many_connections_are_forgotten(tracking: Host) -> None:
    def send_many() -> None:
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(500)]
        for client in clients:
            client.sendto(b"?", ("127.0.0.1", 5353))

    tracking.call(send_many)
    assert _flush(tracking) == 500
    assert _tracked(tracking) == []


def test_nothing_tracked_is_no_error(host: Host) -> None:
    assert _flush(host) == 0


def test_several_ports_are_forgotten_in_one_go(tracking: Host) -> None:
    for port in (5353, 5354, 5355):
        _send(tracking, *V4, port=port)
    ports = [(5353, None), (5354, ip_address(V4[0])), (5355, ip_address(V6[0]))]
    assert tracking.call(conntrack.flush_ports, "udp", ports, socket.AF_INET) == 3
    assert _tracked(tracking) == ["udp 127.0.0.1 5355", "udp 127.0.0.2 5354", "udp 127.0.0.2 5355"]

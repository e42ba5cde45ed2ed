"""SCTP through a published port: a hand-made packet, as not every kernel has SCTP sockets."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest

from cni.testing.namespaces import entered
from cni.testing.wired import Wired

if TYPE_CHECKING:
    from cni.testing import Host

SCTP = 132
_CRC32C = 0x82F63B78
_INIT = 1


def _init_packet(source_port: int, port: int) -> bytes:
    """Return an SCTP packet with an INIT chunk (RFC 9260, sections 3.1 and 3.3.2)."""
    chunk = struct.pack("!BBHIIHHI", _INIT, 0, 20, 0x1234, 65536, 1, 1, 1)
    header = struct.pack("!HHI", source_port, port, 0)
    checksum = struct.pack("<I", _crc32c(header + bytes(4) + chunk))
    return header + checksum + chunk


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _exchange(listening: str, sending: str, address: str, packet: bytes) -> tuple[int, int]:
    """Send a packet from one namespace and give source and destination port as another one hears it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with entered(listening):
        listener = socket.socket(family, socket.SOCK_RAW, SCTP)
    with entered(sending):
        sender = socket.socket(family, socket.SOCK_RAW, SCTP)
    with listener, sender:
        listener.settimeout(3)
        sender.sendto(packet, (address, 0))
        heard = listener.recv(2000)
    # A raw IPv4 socket gives the IP header as well (raw(7)).
    ports: tuple[int, int] = struct.unpack_from("!HH", heard, 20 if family == socket.AF_INET else 0)
    return ports


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("version", [4, 6])
def test_an_sctp_packet_reaches_the_container_port(host: Host, backend: str, version: int) -> None:
    net = Wired(host)
    c1 = net.container()
    mappings = [{"hostPort": 9999, "containerPort": 99, "protocol": "sctp"}]
    net.call("portmap", "ADD", c1, {"backend": backend, "runtimeConfig": {"portMappings": mappings}}).must()
    outside = host.outside
    target = outside.host_address if version == 4 else outside.host_address6
    packet = _init_packet(7777, 9999)
    assert host.call(_exchange, c1.sandbox.path, outside.sandbox.path, target, packet) == (7777, 99)

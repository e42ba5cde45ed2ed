"""A neighbour on the segment answers a request to all with thousands of packets; the helper goes on."""

from __future__ import annotations

import random
import socket
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from cni.kernel.netns import open_netns
from cni.service import control
from cni_dhcp import lease as leases
from cni_dhcp import packets
from cni_dhcp.packets import Message
from cni_dhcp.records import HELPER
from tests.dhcp_host import SERVER, WITHIN_S, DhcpHost, dhcp

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dhcp"]

pytestmark = pytest.mark.modes("warm")

ROUNDS, PACKETS = 4, 500
_HEADERS, _OPTIONS = 28, 28 + 236
_KINDS = (packets.OFFER, packets.ACK, packets.NAK)


def _forged(request: Message, chance: random.Random) -> bytes:
    """Return an answer for another address that is valid but for some bytes, as an IP packet."""
    options = {
        packets.SERVER_IDENTIFIER: IPv4Address(SERVER).packed,
        packets.LEASE_TIME: chance.randbytes(4),
        packets.SUBNET_MASK: b"\xff\xff\xff\0",
        packets.CLASSLESS_ROUTES: b"\0" + chance.randbytes(4),
        packets.DOMAIN_SEARCH: b"\3eng\5apple\3com\0\x09marketing\xc0\x04",
        packets.MESSAGE: chance.randbytes(40),
    }
    answer = Message(chance.choice(_KINDS), request.xid, request.mac, options, your_address=IPv4Address(7))
    text = bytearray(packets.encode(answer))
    text[0] = 2
    packet = bytearray(packets.wrap(bytes(text), IPv4Address(SERVER), packets.BROADCAST))
    packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
    for _ in range(chance.randrange(6)):
        packet[chance.randrange(_OPTIONS, len(packet))] = chance.randrange(256)
    if chance.random() < 0.1:
        packet[chance.randrange(_HEADERS)] = chance.randrange(256)
    if chance.random() < 0.2:
        del packet[chance.randrange(len(packet)) :]
    return bytes(packet)


@pytest.fixture
def neighbour(dhcp: DhcpHost) -> Iterator[socket.socket]:
    """Yield a packet socket in another container of the segment."""
    dhcp.network.add("c2")
    with open_netns(f"/proc/{dhcp.host.pid}/root/run/netns/c2") as ns, ns.entered():
        inside = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with inside:
        inside.settimeout(WITHIN_S)
        inside.bind(("eth0", 0x0800))
        yield inside


def _request(neighbour: socket.socket) -> Message:
    """Return the next request to all that the neighbour sees."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        packet = neighbour.recv(2000)
        if packet[9] == 17 and packet[22:24] == packets.SERVER_PORT.to_bytes(2):
            message = packets.parse_request(packet[_HEADERS:])
            if message.kind == packets.REQUEST:
                return message
    raise AssertionError("the helper has sent no request")


def test_thousands_of_malformed_answers_do_not_stop_the_helper(
    dhcp: DhcpHost, neighbour: socket.socket
) -> None:
    attached = dhcp.network.add("c1")
    [helper] = dhcp.helpers()
    lease = dhcp.record()
    assert lease.expires_s is not None
    dhcp.stop()
    chance = random.Random(7)  # noqa: S311 - the same packets in each run
    for number in range(ROUNDS):
        # The helper pauses between two attempts for a lease with one end.
        dhcp.age_unseen(renew_s=1, rebind_s=2, expires_s=lease.expires_s + number)
        dhcp.host.call(HELPER.wake)
        request = _request(neighbour)
        assert request.mac == lease.identity.mac
        for _ in range(PACKETS):
            packet = _forged(request, chance)
            neighbour.sendto(packet, ("eth0", 0x0800, 0, 0, request.mac))
        # The helper answers as soon as the exchange is over.
        dhcp.host.call(HELPER.wake, until_done=True)
    assert dhcp.helpers() == [helper]
    [running] = dhcp.host.call(control.find)
    assert dhcp.host.call(control.report, running)["restarts"] == 0
    after = dhcp.record()
    assert (after.state, after.address) == (leases.BOUND, lease.address)
    assert ",UP" in attached.sandbox.run(["ip", "link", "show", "eth0"])
    dhcp.serve()
    dhcp.age(renew_s=1, expires_s=lease.expires_s + ROUNDS)
    assert dhcp.record().xid != lease.xid


def test_a_forged_refusal_of_a_neighbour_is_ignored(dhcp: DhcpHost, neighbour: socket.socket) -> None:
    """It has the number of the request and the server's address, but comes from another hardware address."""
    dhcp.network.add("c1")
    dhcp.stop()
    dhcp.age_unseen(renew_s=1, rebind_s=2)
    dhcp.host.call(HELPER.wake)
    request = _request(neighbour)
    options = {packets.SERVER_IDENTIFIER: IPv4Address(SERVER).packed}
    text = bytearray(packets.encode(Message(packets.NAK, request.xid, request.mac, options)))
    text[0] = 2
    packet = bytearray(packets.wrap(bytes(text), IPv4Address(SERVER), packets.BROADCAST))
    packet[20:22], packet[22:24] = packet[22:24], packet[20:22]
    neighbour.sendto(bytes(packet), ("eth0", 0x0800, 0, 0, request.mac))
    dhcp.host.call(HELPER.wake, until_done=True)
    assert dhcp.record().state == leases.BOUND

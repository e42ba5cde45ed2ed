"""Exchanges with DHCP servers through a container's link, which may have no address yet.

A packet socket sends and receives IP packets without the kernel's IP. It is opened in the container's
namespace for one exchange, because a socket keeps its namespace alive.
"""

from __future__ import annotations

import ctypes
import random
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from cni.errors import CniError, Code, KernelError
from cni_dhcp import lease as leases
from cni_dhcp import packets
from cni_dhcp.packets import MalformedError, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from ipaddress import IPv4Address

    from cni.kernel.netns import Netns
    from cni_dhcp.lease import Identity, Lease

_ETHERTYPE_IP = 0x0800
_EVERY_MAC = b"\xff" * 6
_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
# UDP to the client's port, and no later fragment: struct sock_filter of <linux/filter.h>.
_FILTER = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 6),  # the fragment's offset
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 0),  # the length of the IP header
    (0x48, 0, 0, 2),  # the target port
    (0x15, 0, 1, packets.CLIENT_PORT),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)
_LARGEST = 1 << 16
# A bridge port that has just come up may lose the first message. The Go plugin's pauses follow.
_FIRST_PAUSES_S = (0.1, 0.5)
_FAST_PAUSES, _FAST_PAUSE_S, _SPREAD_S = 4, 2.0, 1.0
_SLOW_PAUSE_S, _LONGEST_PAUSE_S = 4.0, 62.0
_REQUESTS = 4


class Reply(NamedTuple):
    """A server's message, and the hardware address that it came from."""

    message: Message
    mac: bytes


class Target(NamedTuple):
    """The destination of a message: hardware address, address, and the address that it comes from."""

    mac: bytes = _EVERY_MAC
    address: IPv4Address = packets.BROADCAST
    source: IPv4Address = packets.NOWHERE


class Exchange:
    """A packet socket on a link of a namespace, for the messages of one client. A context manager."""

    def __init__(self, ns: Netns, ifname: str, identity: Identity) -> None:
        self._ifname = ifname
        self._identity = identity
        self.xid = random.SystemRandom().getrandbits(32)
        with ns.entered():
            try:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
            except OSError as error:
                raise self._failed("open a packet socket", error) from error
        try:
            _attach_filter(self._socket)
            self._socket.settimeout(0)
            self._socket.bind((ifname, _ETHERTYPE_IP))
        except OSError as error:
            self._socket.close()
            raise self._failed("bind a packet socket", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def acquire(self, timeout_s: float, on_offer: Callable[[Lease], object]) -> tuple[Reply, Lease]:
        """Return a server's acknowledgement and its lease. Call `on_offer` before an offer is accepted.

        Raise CniError 11 if there is none within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        refusals: list[str] = []
        for pause_s in _pauses():
            offer = self._discover(min(pause_s, deadline - time.monotonic()), refusals)
            if offer is not None:
                on_offer(offer)
                acquired = self._request(offer, deadline, refusals)
                if acquired is not None:
                    return acquired
                # A server that refuses what it has offered must not be asked without end.
                time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                break
        reason = f"the last message was refused: {refusals[-1]}" if refusals else "no DHCP server answered"
        raise CniError(
            Code.TRY_AGAIN,
            f"error calling DHCP.Allocate: no more tries: {reason} on {self._ifname} within {timeout_s:g} s",
            "Start a DHCP server on the network that the interface is connected to, and check that it has "
            "free addresses and that no firewall drops UDP ports 67 and 68. "
            'Set "ipam.timeoutSeconds" for a slow server.',
        )

    def renew(self, lease: Lease, timeout_s: float, *, is_broadcast: bool) -> Lease | None:
        """Return the lease with new times; None if no server renews it within `timeout_s` seconds.

        The request goes to the server of the lease, or to all. The result is REFUSED if the server of the
        lease refuses. A refusal by another server does not end it: any neighbour sees a request to all.
        """
        target = Target(source=lease.address)
        if not is_broadcast:
            target = Target(lease.server_mac, lease.server, lease.address)
        message = self._message(packets.REQUEST, {})._replace(client_address=lease.address)
        asked_s, refusals = now_s(), list[str]()
        for reply in self._ask(message, target, (packets.ACK, packets.NAK), timeout_s):
            if reply.message.kind == packets.NAK:
                if _is_server_of(lease, reply):
                    return lease._replace(state=leases.REFUSED)
                continue
            renewed = self._read(reply, asked_s, refusals)
            if renewed is not None and renewed.address == lease.address:
                return renewed
        return None

    def release(self, lease: Lease) -> None:
        """Release the address at its server. No answer follows (RFC 2131, section 4.4.6)."""
        options = {packets.SERVER_IDENTIFIER: lease.server.packed}
        message = self._message(packets.RELEASE, options)
        message = message._replace(client_address=lease.address, wants_broadcast=False)
        self._send(message, Target(lease.server_mac, lease.server, lease.address))

    def _discover(self, timeout_s: float, refusals: list[str]) -> Lease | None:
        message = self._message(packets.DISCOVER, {})
        for reply in self._ask(message, Target(), (packets.OFFER,), timeout_s):
            try:
                return leases.of_offer(reply.message, reply.mac, self._identity)
            except MalformedError as error:
                refusals.append(str(error))
        return None

    def _request(self, offer: Lease, deadline: float, refusals: list[str]) -> tuple[Reply, Lease] | None:
        """Accept an offer; return None if the server refuses, or does not answer."""
        addresses = {
            packets.REQUESTED_ADDRESS: offer.address.packed,
            packets.SERVER_IDENTIFIER: offer.server.packed,
        }
        message = self._message(packets.REQUEST, addresses)
        for pause_s in _pauses(_REQUESTS):
            asked_s, timeout_s = now_s(), min(pause_s, deadline - time.monotonic())
            for reply in self._ask(message, Target(), (packets.ACK, packets.NAK), timeout_s):
                if reply.message.kind == packets.NAK:
                    text = reply.message.text(packets.MESSAGE)
                    refusals.append(f"server {offer.server} does not give {offer.address}: {text}")
                    return None
                lease = self._read(reply, asked_s, refusals)
                if lease is not None:
                    return reply, lease
        return None

    def _read(self, reply: Reply, asked_s: float, refusals: list[str]) -> Lease | None:
        try:
            reply.message.prefix_length()
            return leases.of_acknowledgement(reply.message, reply.mac, self._identity, asked_s)
        except MalformedError as error:
            refusals.append(str(error))
            return None

    def _message(self, kind: int, options: dict[int, bytes]) -> Message:
        named = options | dict(self._identity.options)
        return Message(kind, self.xid, self._identity.mac, named, wants_broadcast=True)

    def _ask(
        self, message: Message, target: Target, kinds: tuple[int, ...], timeout_s: float
    ) -> Iterator[Reply]:
        """Send a message; yield the replies of these kinds until the time is up."""
        deadline = time.monotonic() + timeout_s
        self._send(message, target)
        while (left := deadline - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
            try:
                packet, sender = self._socket.recvfrom(_LARGEST)
                reply = packets.parse(packets.unwrap(packet))
            except (MalformedError, BlockingIOError):
                continue
            except OSError as error:
                raise self._failed("receive", error) from error
            is_own = (reply.xid, reply.mac) == (message.xid, message.mac)
            # Another container could answer as well, but it does not know the number.
            if is_own and reply.kind in kinds:
                yield Reply(reply, bytes(sender[4]))

    def _send(self, message: Message, target: Target) -> None:
        packet = packets.wrap(packets.encode(message), target.source, target.address)
        try:
            self._socket.sendto(packet, (self._ifname, _ETHERTYPE_IP, 0, 0, target.mac))
        except OSError as error:
            raise self._failed("send", error) from error

    def _failed(self, doing: str, error: OSError) -> KernelError:
        return KernelError(f"DHCP on {self._ifname}: could not {doing}", error.errno or 0)


def now_s() -> float:
    """Return the seconds since the boot, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_server_of(lease: Lease, reply: Reply) -> bool:
    try:
        return (reply.message.address(packets.SERVER_IDENTIFIER), reply.mac) == (
            lease.server,
            lease.server_mac,
        )
    except MalformedError:
        return False


def _pauses(most: int = 0) -> Iterator[float]:
    """Yield the seconds to wait for an answer to one message after the other; at most `most`, 0 for all."""
    count = 0
    slow_s = _SLOW_PAUSE_S
    while not most or count < most:
        if count < len(_FIRST_PAUSES_S):
            yield _FIRST_PAUSES_S[count]
        elif count < len(_FIRST_PAUSES_S) + _FAST_PAUSES:
            yield _FAST_PAUSE_S + random.SystemRandom().uniform(-_SPREAD_S, _SPREAD_S)
        else:
            yield slow_s + random.SystemRandom().uniform(-_SPREAD_S, _SPREAD_S)
            slow_s = min(2 * slow_s, _LONGEST_PAUSE_S)
        count += 1


def _attach_filter(inside: socket.socket) -> None:
    """Let the kernel drop all other packets: a busy link would fill the buffer."""
    program = b"".join(struct.pack("HBBI", *each) for each in _FILTER)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HL", len(_FILTER), ctypes.addressof(buffer))
    inside.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)

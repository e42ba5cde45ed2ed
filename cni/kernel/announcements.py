"""Listen to announcements of the kernel: changes of links, addresses and routes, and of nftables.

A socket that listens costs nothing until something changes. If changes come faster than they are read, the
kernel drops some and reports ENOBUFS once: the listener knows that it has missed something, but not what.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable

# netlink(7), <linux/netlink.h>
ROUTE, NETFILTER = 0, 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_KERNEL = 0
_HEADER = struct.Struct("=IHHII")

# <linux/rtnetlink.h>, enum rtnetlink_groups
LINKS, ADDRESSES, ROUTES = (1,), (5, 9), (7, 11)
# Whether links forward.
FORWARDING = (24, 25)
# <linux/netfilter/nfnetlink.h>, enum nfnetlink_groups
NFTABLES = (7,)

# The kernel charges the buffer only for what waits in it.
_BUFFER_BYTES = 1 << 20
_DATAGRAM_BYTES = 1 << 16
# A caller gets a turn after this many datagrams, also during a flood.
_MOST_DATAGRAMS = 256


class Announcement(NamedTuple):
    """A message without its header."""

    kind: int
    payload: bytes


class Heard(NamedTuple):
    """The messages that have come; `is_whole` is False if the kernel has dropped some."""

    messages: list[Announcement]
    is_whole: bool


class Listener:
    """A socket in this network namespace that listens to groups of a netlink family. Raise KernelError."""

    def __init__(self, family: int, groups: Iterable[int]) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, family)
            self._socket.bind((0, 0))
            self._widen()
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            raise KernelError("listen to the kernel", error.errno or errno.EIO) from error

    def _widen(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            # In a user namespace the system's limit holds.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read(self) -> Heard:
        """Return what has come, without waiting. Raise KernelError."""
        messages: list[Announcement] = []
        is_whole = True
        for _ in range(_MOST_DATAGRAMS):
            try:
                data, (sender, _) = self._socket.recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError("listen to the kernel", error.errno or errno.EIO) from error
                is_whole = False
                continue
            # A process in the namespace can send to a group, too.
            if sender == _KERNEL:
                messages += _split(data)
        return Heard(messages, is_whole)


def _split(data: bytes) -> Iterable[Announcement]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        yield Announcement(kind, data[at + _HEADER.size : at + length])
        at += (max(length, _HEADER.size) + 3) & ~3

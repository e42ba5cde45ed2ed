"""Count the processes that plugins start: the kernel reports every fork by its process connector.

linux/cn_proc.h. Only a process with CAP_NET_ADMIN in the machine's first network and pid namespaces receives
them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Collection

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_MCAST_LISTEN = 1
_FORK = 1
_NLMSG_DONE = 3
_NLMSG = struct.Struct("=IHHII")
_CN_MSG = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_PIDS = struct.Struct("=iiii")
_SETTLED_MS = 50
_MANY_EVENTS = 100_000


class Fork(NamedTuple):
    """A new process, not a thread."""

    parent: int
    child: int


class Forks:
    """Receive all forks of the machine until the context ends. Raises OSError without permission."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self._socket.bind((0, _CN_IDX_PROC))
            operation = struct.pack("=I", _MCAST_LISTEN)
            body = _CN_MSG.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(operation), 0) + operation
            self._socket.send(_NLMSG.pack(_NLMSG.size + len(body), _NLMSG_DONE, 0, 0, 0) + body)
            if not self._listen_to_own():
                raise PermissionError("the kernel does not tell of forks here")
        except OSError:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _listen_to_own(self) -> bool:
        child = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(child, 0)
        return Fork(os.getpid(), child) in self.heard()

    def heard(self) -> list[Fork]:
        """Return the forks since the last call, after a moment without forks."""
        found = []
        for _ in range(_MANY_EVENTS):
            if not select.select([self._socket], [], [], _SETTLED_MS / 1000)[0]:
                break
            if fork := _parse(self._socket.recv(4096)):
                found.append(fork)
        return found


def _parse(message: bytes) -> Fork | None:
    at = _NLMSG.size + _CN_MSG.size
    if len(message) < at + _EVENT.size + _PIDS.size or _EVENT.unpack_from(message, at)[0] != _FORK:
        return None
    _, parent, child, child_group = _PIDS.unpack_from(message, at + _EVENT.size)
    return Fork(parent, child) if child == child_group else None


class Family:
    """The processes that plugins and warm servers have started, by what was heard of forks so far.

    `me` is the process whose children spawn plugins; `servers` are the warm server's, workers included.
    """

    def __init__(self, me: int, servers: Collection[int]) -> None:
        self._me = me
        self._members = set(servers)

    def count(self, forks: list[Fork]) -> int:
        """Count the processes besides the plugins themselves."""
        spawners = {fork.child for fork in forks if fork.parent == self._me}
        self._members |= {fork.child for fork in forks if fork.parent in spawners}
        started = 0
        for fork in forks:
            if fork.parent in self._members:
                self._members.add(fork.child)
                started += 1
        return started

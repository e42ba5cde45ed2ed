"""Count the processes that plugins start: the kernel reports every fork by its process connector.

linux/cn_proc.h. Only a process with CAP_NET_ADMIN in the machine's first network and pid namespaces receives
them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_MCAST_LISTEN = 1
_FORK = 1
_NLMSG_DONE = 3
_NLMSG = struct.Struct("=IHHII")
_CN_MSG = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_PIDS = struct.Struct("=iiii")
_SETTLED_S = 0.05
_WITHIN_S = 1


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
            self._heard()
        except OSError:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def count(self, count: Callable[[list[Fork]], int]) -> int:
        """Return the sum of what `count` returns for the forks since the last call.

        The last forks that count are some milliseconds old then. Those of other programs never end.
        """
        total = 0
        while True:
            time.sleep(_SETTLED_S)
            if not (counted := count(self._heard())):
                return total
            total += counted

    def _heard(self) -> list[Fork]:
        """Return the forks since the last call. Raise OSError if the kernel does not tell of forks.

        The kernel tells of them in order: a fork of our own comes after all of them.
        """
        child = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(child, 0)
        own = Fork(os.getpid(), child)
        forks: list[Fork] = []
        while select.select([self._socket], [], [], _WITHIN_S)[0]:
            fork = _parse(self._socket.recv(4096))
            if fork == own:
                return forks
            if fork:
                forks.append(fork)
        raise PermissionError("the kernel does not tell of forks here")


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
        self._spawners: set[int] = set()

    def count(self, forks: list[Fork]) -> int:
        """Count the processes besides the plugins themselves."""
        self._spawners |= {fork.child for fork in forks if fork.parent == self._me}
        self._members |= {fork.child for fork in forks if fork.parent in self._spawners}
        started = 0
        for fork in forks:
            if fork.parent in self._members:
                self._members.add(fork.child)
                started += 1
        return started

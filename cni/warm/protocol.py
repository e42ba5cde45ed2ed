"""The messages between launcher and worker; `build/launcher/protocol.md` is the text for both sides.

One connection (SOCK_SEQPACKET) is one call. The launcher sends the call, the worker ACCEPTED, the launcher
GO with its descriptors, the worker STATUS. A launcher that shuts its side down asks to stop.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

MAGIC = "PYCNI-WARM"
PROTOCOL_VERSION = 1
MAX_REQUEST = 160 * 1024
ACCEPTED = b"A"
GO = b"G"
STATUS = b"S"
FDS = 4  # stdin, stdout, stderr, working directory

_HEAD = f"{MAGIC} {PROTOCOL_VERSION} ".encode()
_PEER_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


class ProtocolError(Exception):
    """What came is no call of this protocol; nothing was done."""


class Call(NamedTuple):
    """One call as the launcher sends it; `variables` are "NAME=value" texts, each with a NUL at its end."""

    build: str
    name: str
    executable: str
    umask: int
    variables: bytes

    def env(self) -> dict[str, str]:
        """Read the variables as a new process does: the first of a name counts, nameless ones do not."""
        texts = reversed(os.fsdecode(self.variables).split("\0"))
        return {name: value for name, sign, value in (each.partition("=") for each in texts) if name and sign}


def peer(connection: socket.socket) -> tuple[int, int]:
    """Give process ID and user ID of the other side."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    return pid, uid


def limit(connection: socket.socket, seconds: int) -> None:
    """Let reading from a connection end with an OSError after this time."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))


def receive(connection: socket.socket, flags: int = 0) -> Call | None:
    """Read the call; None when the launcher has gone. Raises ProtocolError."""
    data = _receive(connection, MAX_REQUEST, descriptors=0, flags=flags)[0]
    return _parse(data) if data else None


def accept(connection: socket.socket) -> None:
    """Tell the launcher that the call will be run. Raises OSError."""
    connection.send(ACCEPTED, socket.MSG_NOSIGNAL)


def begin(connection: socket.socket) -> list[int]:
    """Give the descriptors that come with GO, for the caller to close.

    They are stdin, stdout, stderr and the working directory. Raises ProtocolError, or OSError, when the
    launcher does not want the call run any more.
    """
    data, fds = _receive(connection, len(GO), descriptors=FDS)
    if data != GO or len(fds) != FDS:
        _close(fds)
        raise ProtocolError("the launcher has not sent its descriptors")
    return fds


def answer(connection: socket.socket, status: int) -> None:
    """Tell the exit status; a launcher that has gone does not hear it."""
    with suppress(OSError):
        connection.send(STATUS + bytes([status & 0xFF]), socket.MSG_NOSIGNAL)


def _receive(
    connection: socket.socket, most: int, *, descriptors: int, flags: int = 0
) -> tuple[bytes, list[int]]:
    """Read one message whole, with so many descriptors at the most; raises ProtocolError."""
    # The kernel closes descriptors for which there is no space, and says so with MSG_CTRUNC.
    space = socket.CMSG_SPACE(descriptors * array.array("i").itemsize) if descriptors else 0
    data, ancillary, told, _ = connection.recvmsg(most, space, socket.MSG_CMSG_CLOEXEC | flags)
    fds = _descriptors(ancillary)
    if told & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close(fds)
        raise ProtocolError("the message is too long or has too many descriptors")
    return data, fds


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _parse(data: bytes) -> Call:
    if not data.startswith(_HEAD):
        raise ProtocolError("another protocol, or another version of it")
    if not data.endswith(b"\0"):
        raise ProtocolError("the message does not end where a text ends")
    mask, *texts = data[len(_HEAD) :].split(b"\0", 4)
    if len(texts) < 4:
        raise ProtocolError("build, name or executable is missing")
    build, name, executable = map(os.fsdecode, texts[:3])
    return Call(build, name, executable, _umask(mask), texts[3])


def _umask(octal: bytes) -> int:
    try:
        return int(octal, 8) & 0o777
    except ValueError:
        raise ProtocolError("the umask is no octal number") from None

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
from dataclasses import dataclass

MAGIC = "PYCNI-WARM"
PROTOCOL_VERSION = 1
MAX_REQUEST = 160 * 1024
ACCEPTED = b"A"
GO = b"G"
STATUS = b"S"
FDS = 4  # stdin, stdout, stderr, working directory

_PEER_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


class ProtocolError(Exception):
    """What came is no call of this protocol; nothing was done."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the launcher sends it."""

    build: str
    name: str
    executable: str
    env: dict[str, str]
    umask: int


def peer(connection: socket.socket) -> tuple[int, int]:
    """Give process ID and user ID of the other side."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    return pid, uid


def limit(connection: socket.socket, seconds: int) -> None:
    """Let reading from a connection end with an OSError after this time."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))


def receive(connection: socket.socket) -> Call | None:
    """Read the call; None when the launcher has gone. Raises ProtocolError."""
    data = _receive(connection, MAX_REQUEST, descriptors=0)[0]
    return _parse(data) if data else None


def begin(connection: socket.socket) -> list[int]:
    """Accept the call and give the descriptors that come with GO, for the caller to close.

    They are stdin, stdout, stderr and the working directory. Raises ProtocolError, or OSError, when the
    launcher does not want the call run any more.
    """
    connection.send(ACCEPTED, socket.MSG_NOSIGNAL)
    data, fds = _receive(connection, len(GO), descriptors=FDS)
    if data != GO or len(fds) != FDS:
        _close(fds)
        raise ProtocolError("the launcher has not sent its descriptors")
    return fds


def answer(connection: socket.socket, status: int) -> None:
    """Tell the exit status; a launcher that has gone does not hear it."""
    with suppress(OSError):
        connection.send(STATUS + bytes([status & 0xFF]), socket.MSG_NOSIGNAL)


def _receive(connection: socket.socket, most: int, *, descriptors: int) -> tuple[bytes, list[int]]:
    """Read one message whole, with so many descriptors at the most; raises ProtocolError."""
    # The kernel closes descriptors for which there is no space, and says so with MSG_CTRUNC.
    space = socket.CMSG_SPACE(descriptors * array.array("i").itemsize) if descriptors else 0
    data, ancillary, flags, _ = connection.recvmsg(most, space, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(ancillary)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
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
    if not data.endswith(b"\0"):
        raise ProtocolError("the message does not end where a text ends")
    head, *texts = os.fsdecode(data[:-1]).split("\0")
    if len(texts) < 3:
        raise ProtocolError("build, name or executable is missing")
    mask = _umask(head)
    build, name, executable, *variables = texts
    return Call(build, name, executable, _environment(variables), mask)


def _umask(head: str) -> int:
    match head.split(" "):
        case [magic, version, umask] if magic == MAGIC and version == str(PROTOCOL_VERSION):
            try:
                return int(umask, 8) & 0o777
            except ValueError:
                raise ProtocolError("the umask is no octal number") from None
        case _:
            raise ProtocolError("another protocol, or another version of it")


def _environment(variables: list[str]) -> dict[str, str]:
    """Read "NAME=value" texts as a new process does: the first of a name counts, nameless ones do not."""
    pairs = (variable.partition("=") for variable in reversed(variables))
    return {name: value for name, sign, value in pairs if name and sign}

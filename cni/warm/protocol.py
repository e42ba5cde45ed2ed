"""The messages between launcher and worker; `build/launcher/protocol.md` is the text for both sides.

One connection (SOCK_SEQPACKET) is one call. The launcher sends the call; the worker answers ACCEPTED
when it has it and STATUS when it is done. A launcher that shuts its side down asks to stop.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from dataclasses import dataclass

MAGIC = "PYCNI-WARM"
PROTOCOL_VERSION = 1
MAX_REQUEST = 160 * 1024
ACCEPTED = b"A"
STATUS = b"S"
FDS = 4  # stdin, stdout, stderr, working directory

_PEER_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


class ProtocolError(Exception):
    """What came is no call of this protocol; nothing was done."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the launcher sends it; the owner of `fds` closes them."""

    build: str
    name: str
    executable: str
    env: dict[str, str]
    umask: int
    fds: tuple[int, int, int, int]

    def close(self) -> None:
        """Close the descriptors that came with the call."""
        for fd in self.fds:
            os.close(fd)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Give process ID and user ID of the other side."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    return pid, uid


def receive(connection: socket.socket) -> Call | None:
    """Read the call; None when the launcher has gone. Raises ProtocolError, with nothing left open."""
    # The kernel closes descriptors for which there is no space, and says so with MSG_CTRUNC.
    space = socket.CMSG_SPACE(FDS * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(MAX_REQUEST + 1, space, socket.MSG_CMSG_CLOEXEC)
    fds = _descriptors(ancillary)
    if not data and not fds:
        return None
    try:
        return _checked(data, fds, is_whole=not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
    except ProtocolError:
        for fd in fds:
            os.close(fd)
        raise


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _checked(data: bytes, fds: list[int], *, is_whole: bool) -> Call:
    if not is_whole or len(data) > MAX_REQUEST or len(fds) != FDS:
        raise ProtocolError("the message is too long or has not four descriptors")
    return _parse(data, (fds[0], fds[1], fds[2], fds[3]))


def _parse(data: bytes, fds: tuple[int, int, int, int]) -> Call:
    if not data.endswith(b"\0"):
        raise ProtocolError("the message does not end where a text ends")
    head, *texts = [os.fsdecode(text) for text in data[:-1].split(b"\0")]
    if len(texts) < 3:
        raise ProtocolError("build, name or executable is missing")
    mask = _umask(head)
    build, name, executable, *variables = texts
    return Call(build, name, executable, _environment(variables), mask, fds)


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


def accept(connection: socket.socket) -> bool:
    """Tell the launcher that its call is taken; False when it has given up, and the call must not run."""
    try:
        connection.send(ACCEPTED, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def answer(connection: socket.socket, status: int) -> None:
    """Tell the exit status; a launcher that has gone does not hear it."""
    try:
        connection.send(STATUS + bytes([status & 0xFF]), socket.MSG_NOSIGNAL)
    except OSError:
        return

"""The messages between launcher and worker; `build/launcher/protocol.md` is the text for both sides.

One connection (SOCK_SEQPACKET) is one call. The launcher sends the call; the worker answers ACCEPTED
when it has it and STATUS when it is done. A launcher that shuts its side down asks to stop.
"""

from __future__ import annotations

import array
import os
import socket
from dataclasses import dataclass

MAGIC = "PYCNI-WARM"
PROTOCOL_VERSION = 1
MAX_REQUEST = 160 * 1024
ACCEPTED = b"A"
STATUS = b"S"
FDS = 4  # stdin, stdout, stderr, working directory


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


def receive(connection: socket.socket) -> Call | None:
    """Read the call; None when the launcher has gone. Raises ProtocolError, with nothing left open."""
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


def _checked(data: bytes, fds: list[int], *, is_whole: bool) -> Call:
    if not is_whole or len(fds) != FDS:
        raise ProtocolError("the message was cut short or has not four descriptors")
    return _parse(data, (fds[0], fds[1], fds[2], fds[3]))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _parse(data: bytes, fds: tuple[int, int, int, int]) -> Call:
    if not data.endswith(b"\0"):
        raise ProtocolError("the message does not end where a text ends")
    head, *texts = [os.fsdecode(text) for text in data[:-1].split(b"\0")]
    match head.split(" "):
        case [magic, version, umask] if magic == MAGIC and version == str(PROTOCOL_VERSION):
            mask = _octal(umask)
        case _:
            raise ProtocolError("another protocol, or another version of it")
    if len(texts) < 3:
        raise ProtocolError("build, name or executable is missing")
    build, name, executable, *variables = texts
    env = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    return Call(build, name, executable, env, mask, fds)


def _octal(text: str) -> int:
    try:
        return int(text, 8) & 0o777
    except ValueError:
        raise ProtocolError("the umask is no octal number") from None


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

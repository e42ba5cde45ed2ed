"""Whether the process at the other end of a socket is an equal: the same user and the same namespaces."""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")
_NAMESPACES = ("user", "mnt", "pid", "net")


def own_key() -> str:
    """Return what a process has in common with its equals."""
    return f"{os.geteuid()} {_namespaces('self')}"


def is_equal(connection: socket.socket) -> bool:
    """Return whether the peer is an equal of this process."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(packed)
    try:
        return pid > 0 and f"{user} {_namespaces(str(pid))}" == own_key()
    except OSError:
        return False


def _namespaces(process: str) -> str:
    # pathlib takes longer: callers and helpers do this for each request.
    return " ".join(os.readlink(f"/proc/{process}/ns/{name}") for name in _NAMESPACES)  # noqa: PTH115

"""Requests and responses of helpers: JSON objects, with sockets by name.

The kernel passes at most 253 descriptors in a packet, so a message with more sockets has several packets.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 1 << 16
_MOST_SOCKETS = 250


def send(connection: socket.socket, content: Mapping[str, object], sockets: Mapping[str, int]) -> None:
    """Send an object, and copies of sockets, given by their descriptors. Raise OSError."""
    named = list(sockets.items())
    for at in range(0, max(1, len(named)), _MOST_SOCKETS):
        part = named[at : at + _MOST_SOCKETS]
        more = {"names": [name for name, _ in part], "more": at + _MOST_SOCKETS < len(named)}
        socket.send_fds(connection, [json.dumps({**content, **more}).encode()], [fd for _, fd in part])


def receive(connection: socket.socket) -> tuple[dict[str, Any], dict[str, int]]:
    """Return an object and the descriptors of its sockets, by name. Raise OSError or ValueError."""
    sockets: dict[str, int] = {}
    unnamed: list[int] = []
    try:
        while True:
            text, unnamed, _, _ = socket.recv_fds(
                connection, _LARGEST, _MOST_SOCKETS, socket.MSG_CMSG_CLOEXEC
            )
            content, names, has_more = _parse(text)
            sockets.update(zip(names, unnamed, strict=False))
            unnamed = unnamed[len(names) :]
            if not has_more:
                return content, sockets
    except BaseException:
        close(sockets)
        raise
    finally:
        close(dict(enumerate(unnamed)))


def close(sockets: Mapping[Any, int]) -> None:
    """Close descriptors that `receive` has returned."""
    for each in sockets.values():
        os.close(each)


def _parse(text: bytes) -> tuple[dict[str, Any], list[str], bool]:
    content = json.loads(text)
    try:
        return content, [str(each) for each in content.get("names", ())], bool(content.get("more"))
    except (AttributeError, TypeError) as error:
        raise ValueError("the message is malformed") from error

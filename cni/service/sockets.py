"""The sockets of a helper that outlive it: its guard holds them, and the next helper has them again.

    sockets.keep("udp 10.1.0.1:53", bound)    # `receive` of the module reads it
    sockets.kept()                            # those of an earlier helper, too
    sockets.drop("udp 10.1.0.1:53")

A process has one helper, so this module has one set of sockets.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Protocol

from cni.errors import CniError, Code
from cni.service.guard import DROP, KEEP, LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Attended(Protocol):
    """An object with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


_kept: dict[str, socket.socket] = {}
_attended: dict[str, Attended] = {}
_names: dict[int, str] = {}
_poller = select.poll()
_guard: list[socket.socket] = []


def adopt(fds: Mapping[str, int], guard: socket.socket) -> None:
    """Take over the sockets that the guard holds; `guard` is the connection to it."""
    _guard[:] = [guard]
    for name, fd in fds.items():
        _register(name, socket.socket(fileno=fd))


def keep(name: str, bound: socket.socket) -> None:
    """Keep a socket, in place of an earlier one of this name, which is closed. Raise CniError 106."""
    if len(name.encode()) >= LONGEST_NAME:
        raise CniError(Code.STORE, f'the name "{name}" of a socket is too long')
    drop(name)
    bound.settimeout(0)
    _register(name, bound)
    _tell(KEEP + name.encode(), bound)


def drop(name: str) -> None:
    """Close a socket, if there is one of this name."""
    if (bound := _kept.pop(name, None)) is None:
        return
    _poller.unregister(bound)
    del _names[bound.fileno()]
    bound.close()
    _tell(DROP + name.encode())


def attend(name: str, served: Attended) -> None:
    """Let `receive` serve something that ends with this helper, as a poller of connections."""
    _attended[name] = served
    _names[served.fileno()] = name
    _poller.register(served, select.POLLIN)


def find(name: str) -> Any:
    """Return what `keep` or `attend` has been given under a name; None if it is gone."""
    return _kept.get(name) or _attended.get(name)


def kept() -> Mapping[str, socket.socket]:
    """Return the sockets by name."""
    return _kept


def watch(fd: int) -> None:
    """Let `wait` return when a descriptor of the loop is readable, too."""
    _poller.register(fd, select.POLLIN)


def unwatch(fd: int) -> None:
    """End what `watch` has begun."""
    _poller.unregister(fd)


def wait(timeout_s: float) -> tuple[set[int], list[str]]:
    """Return the readable descriptors of the loop, and the names of readable sockets."""
    ready = {fd for fd, _ in _poller.poll(max(0, timeout_s) * 1000)}
    names = [_names[fd] for fd in ready if fd in _names]
    return ready - _names.keys(), names


def _register(name: str, bound: socket.socket) -> None:
    _kept[name] = bound
    _names[bound.fileno()] = name
    _poller.register(bound, select.POLLIN)


def _tell(text: bytes, *sent: socket.socket) -> None:
    try:
        socket.send_fds(_guard[0], [text], [each.fileno() for each in sent])
    except (OSError, IndexError):
        # The guard was killed: the loop executes it again with these sockets.
        return

"""Descriptors that come and go, each with the function that serves it: connections and upstream sockets."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Poller:
    """An epoll object; it is readable itself when any of its descriptors is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._served: dict[int, Callable[[], None]] = {}

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._epoll.fileno()

    def watch(self, watched: socket.socket | int, serve: Callable[[], None], mask: int = READ) -> None:
        """Call `serve` when a socket is ready, or has failed."""
        self._epoll.register(watched, mask)
        self._served[watched if isinstance(watched, int) else watched.fileno()] = serve

    def change(self, watched: socket.socket, mask: int) -> None:
        """Wait for something else."""
        self._epoll.modify(watched, mask)

    def close(self, watched: socket.socket) -> None:
        """Forget a socket, and close it."""
        if self._served.pop(watched.fileno(), None):
            self._epoll.unregister(watched)
        watched.close()

    def serve(self) -> None:
        """Serve what is ready now."""
        for fd, _ in self._epoll.poll(0):
            # One that was served before may have closed it.
            if serve := self._served.get(fd):
                serve()

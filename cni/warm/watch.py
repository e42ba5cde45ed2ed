"""A worker's eye on its launcher: who is killed takes the call along, who wants to stop has it undone."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from typing import TYPE_CHECKING

from cni import skel

if TYPE_CHECKING:
    import socket
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGIO)


class LauncherWatch:
    """Interrupts this process, between `begin` and `end`, when something happens to a connection."""

    def __init__(self) -> None:
        self._poller = select.poll()
        self._is_stopping = False

    def begin(self, connection: socket.socket) -> None:
        """From now on a launcher that dies kills us; one that wants to stop is as a SIGTERM to a plugin.

        Raises CniError 11, now or at any moment later, in the second case.
        """
        self._is_stopping = False
        skel.forget_stops()
        self._poller.register(connection, select.POLLRDHUP)
        for number, handler in zip(_SIGNALS, (skel.stop, skel.stop, self._look), strict=True):
            signal.signal(number, handler)
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(connection, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)
        # It may have gone before that.
        self._look(signal.SIGIO, None)

    def end(self, connection: socket.socket) -> None:
        """Be interrupted no more; also when `begin` was not reached."""
        fcntl.fcntl(connection, fcntl.F_SETFL, os.O_RDWR)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        try:
            self._poller.unregister(connection)
        except KeyError:
            return

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        for _, events in self._poller.poll(0):
            if events & (select.POLLHUP | select.POLLERR):
                os.kill(os.getpid(), signal.SIGKILL)
            if not self._is_stopping:
                self._is_stopping = True
                skel.stop(signal.SIGTERM, None)

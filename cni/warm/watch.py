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

_STOPS = (signal.SIGTERM, signal.SIGINT)


class LauncherWatch:
    """Interrupts this process, between `begin` and `end`, when something happens to a connection.

    The handlers are there from the start: to set them for each call would take longer than many a call.
    """

    def __init__(self) -> None:
        self._poller = select.poll()
        self._is_watching = False
        self._is_stopping = False
        self._listen()

    def _listen(self) -> None:
        for number in (*_STOPS, signal.SIGIO):
            signal.signal(number, self._on_signal)

    def begin(self, connection: socket.socket) -> None:
        """From now on a launcher that dies kills us; one that wants to stop is as a SIGTERM to a plugin.

        Raises CniError 11, now or at any moment later, in the second case.
        """
        skel.forget_stops()
        self._poller.register(connection, select.POLLRDHUP)
        self._is_watching = True
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(connection, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC)
        # It may have gone before that.
        self._look()

    def end(self, connection: socket.socket) -> None:
        """Be interrupted no more; also when `begin` was not reached."""
        if not self._is_watching:
            return
        fcntl.fcntl(connection, fcntl.F_SETFL, os.O_RDWR)
        self._is_watching = False
        self._poller.unregister(connection)
        if signal.getsignal(signal.SIGTERM) != self._on_signal:
            # What stopped the call keeps others from doing so.
            self._is_stopping = False
            self._listen()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGIO:
            self._look()
        elif self._is_watching:
            skel.stop(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _look(self) -> None:
        for _, events in self._poller.poll(0) if self._is_watching else ():
            if events & (select.POLLHUP | select.POLLERR):
                os.kill(os.getpid(), signal.SIGKILL)
            if not self._is_stopping:
                self._is_stopping = True
                skel.stop(signal.SIGTERM, None)

"""Watch a worker's launcher: if it dies, kill this worker; if it forwards a signal, undo the call."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from cni import stops

if TYPE_CHECKING:
    from types import FrameType

    from cni.warm.connection import Connection


class LauncherWatch:
    """Interrupts this process, between `begin` and `end`, when the launcher dies or forwards a signal.

    The signal handlers are installed once: installing them for each call would take longer than many a call.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_watching = False
        self._is_ending = False
        self._missed = 0
        self._install_handlers()

    def _install_handlers(self) -> None:
        for number in (*stops.SIGNALS, signal.SIGIO):
            signal.signal(number, self._on_signal)

    def begin(self) -> None:
        """Start to watch.

        If the launcher dies, SIGKILL ends this process. If the launcher forwards a signal, CniError 11 is
        raised, by this method or at any later moment.
        """
        self._is_watching = True
        # The launcher may have died already.
        self._handle(self._connection.watch(), None)

    def end(self) -> None:
        """Stop watching; also if `begin` was not reached.

        Until `renew`, signals do not end the process either: the response is written, and the launcher waits
        for the status.
        """
        self._is_ending = True
        if self._is_watching:
            self._connection.unwatch()
            self._is_watching = False

    def renew(self) -> None:
        """Prepare for the next call, after the status has been sent."""
        if signal.getsignal(signal.SIGTERM) != self._on_signal:
            self._install_handlers()
        stops.forget()
        self._is_ending = False
        if self._missed:
            self._die(self._missed)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGIO:
            self._handle(self._connection.poll() if self._is_watching else 0, frame)
        elif self._is_watching:
            stops.stop(number, frame)
        elif self._is_ending:
            self._missed = number
        else:
            self._die(number)

    def _die(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _handle(self, events: int, frame: FrameType | None) -> None:
        if events & (select.POLLHUP | select.POLLERR):
            os.kill(os.getpid(), signal.SIGKILL)
        if events:
            number = self._connection.stop_signal()
            # Another program may have sent the number, so only these signals are accepted.
            stops.stop(number if number in stops.SIGNALS else signal.SIGTERM, frame)

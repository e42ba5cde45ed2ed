"""A worker's eye on its launcher: who is killed takes the call along, who wants to stop has it undone."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from cni import stops

if TYPE_CHECKING:
    from types import FrameType

    from cni.warm.connection import Door


class LauncherWatch:
    """Interrupts this process, between `begin` and `end`, when something happens to a door's connection.

    The handlers are there from the start: to set them for each call would take longer than many a call.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._is_watching = False
        self._is_ending = False
        self._missed = 0
        self._listen()

    def _listen(self) -> None:
        for number in (*stops.SIGNALS, signal.SIGIO):
            signal.signal(number, self._on_signal)

    def begin(self) -> None:
        """Watch from now on: a launcher that dies kills us, the signal that one passes on is as one to us.

        Raises CniError 11, now or at any moment later, in the second case.
        """
        self._is_watching = True
        # It may have gone before that.
        self._heed(self._door.watch(), None)

    def end(self) -> None:
        """Be interrupted no more; also when `begin` was not reached.

        Until `renew` a signal does not end the process either: the result has been written, and the launcher
        waits for the status.
        """
        self._is_ending = True
        if self._is_watching:
            self._door.unwatch()
            self._is_watching = False

    def renew(self) -> None:
        """Be ready for the next call, when this one has been answered."""
        if signal.getsignal(signal.SIGTERM) != self._on_signal:
            self._listen()
        stops.forget()
        self._is_ending = False
        if self._missed:
            self._die(self._missed)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGIO:
            self._heed(self._door.look() if self._is_watching else 0, frame)
        elif self._is_watching:
            stops.stop(number, frame)
        elif self._is_ending:
            self._missed = number
        else:
            self._die(number)

    def _die(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _heed(self, events: int, frame: FrameType | None) -> None:
        if events & (select.POLLHUP | select.POLLERR):
            os.kill(os.getpid(), signal.SIGKILL)
        if events:
            number = self._door.stop()
            # What another program may have sent is no number of a signal to trust.
            stops.stop(number if number in stops.SIGNALS else signal.SIGTERM, frame)

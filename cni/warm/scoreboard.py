"""What the workers of a server are doing, in memory that all of them share.

A worker that writes here wakes nobody: on a machine with few cores a server that woke up with each call
would take the place of the launcher or the worker, 0.1 ms of each call.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from typing import NamedTuple

_VACANT, _IDLE, _BUSY, _LATE = b"\0\1\2\3"
_IDLE_STATE = bytes([_IDLE])
_COUNT = struct.Struct("=Q")


class Board:
    """A place for each worker, with its state and the calls that were served at it."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._memory = mmap.mmap(-1, places + places * _COUNT.size)

    def vacant(self) -> int:
        """Give the number of a place without a worker. Raises ValueError when there is none."""
        return self._states().index(_VACANT)

    def set_idle(self, place: int) -> None:
        """Note that a worker is there and waits."""
        self._memory[place] = _IDLE

    def set_busy(self, place: int) -> bool:
        """Note that it has a connection; tells whether another one waits."""
        self._memory[place] = _BUSY
        return self._memory.find(_IDLE_STATE, 0, self._places) >= 0

    def set_late(self, place: int) -> None:
        """Note that it has answered, and waits for the kernel to be done before it takes another call."""
        self._memory[place] = _LATE

    def set_vacant(self, place: int) -> None:
        """Note that it has ended."""
        self._memory[place] = _VACANT

    def count_call(self, place: int) -> None:
        """Note that it has served a call."""
        _COUNT.pack_into(self._memory, self._places + place * _COUNT.size, self.calls_at(place) + 1)

    def is_idle(self, place: int) -> bool:
        """Tell whether the worker at a place waits, or did so when it ended."""
        return self._memory[place : place + 1] == _IDLE_STATE

    def calls_at(self, place: int) -> int:
        """Give how many calls were served at a place, by whatever worker."""
        count: int = _COUNT.unpack_from(self._memory, self._places + place * _COUNT.size)[0]
        return count

    @property
    def idle(self) -> int:
        """How many wait."""
        return self._states().count(_IDLE)

    @property
    def busy(self) -> int:
        """How many have a connection, or have answered and wait for the kernel."""
        return self._states().count(_BUSY) + self.late

    @property
    def late(self) -> int:
        """How many have answered and wait for the kernel."""
        return self._states().count(_LATE)

    @property
    def calls(self) -> int:
        """How many calls were served since the board was made."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._memory[self._places :]))

    def _states(self) -> bytes:
        return self._memory[: self._places]


class Post(NamedTuple):
    """A worker's place; `alarm` is a descriptor, written to when nobody is left who could take a call."""

    board: Board
    place: int
    alarm: int

    def is_busy(self) -> None:
        """Tell that the worker has a connection."""
        if not self.board.set_busy(self.place):
            # A full pipe says it as well.
            with suppress(OSError):
                os.write(self.alarm, b"!")

    def is_late(self) -> None:
        """Tell that it has answered, and takes no call before the kernel is done."""
        self.board.set_late(self.place)

    def has_served(self) -> None:
        """Tell that it was a call, which has been answered."""
        self.board.count_call(self.place)

    def is_idle(self) -> None:
        """Tell that it waits."""
        self.board.set_idle(self.place)

"""The state of each worker of a server, in memory that the server and all workers share.

A worker that writes here wakes no process. A server that woke up with each call would compete with launcher
and worker for the cores: 0.1 ms of each call on a machine with few cores.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from typing import NamedTuple

_VACANT, _IDLE, _BUSY, _BACKGROUND = b"\0\1\2\3"
_IDLE_STATE = bytes([_IDLE])
_COUNT = struct.Struct("=Q")
_CALL = struct.Struct("=qq")


class Running(NamedTuple):
    """A worker's call: the hash of its attachment, 0 for none, and the process ID of its launcher."""

    attachment: int
    launcher: int


_NOTHING = Running(0, 0)


class Scoreboard:
    """A slot for each worker: its state, the number of calls served there, and the call that it serves."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._counts_at = slots
        self._calls_at = self._counts_at + slots * _COUNT.size
        self._memory = mmap.mmap(-1, self._calls_at + slots * _CALL.size)

    def vacant_slot(self) -> int:
        """Return the number of a slot without a worker. Raises ValueError if there is none."""
        return self._states().index(_VACANT)

    def set_idle(self, slot: int) -> None:
        """Record that the worker waits for a call."""
        self._memory[slot] = _IDLE

    def set_busy(self, slot: int) -> bool:
        """Record that the worker has a connection. Return whether another worker is idle."""
        self._memory[slot] = _BUSY
        return self._memory.find(_IDLE_STATE, 0, self._slots) >= 0

    def set_background(self, slot: int) -> None:
        """Record that the worker has responded, and takes no call until its background task has ended."""
        self._memory[slot] = _BACKGROUND

    def set_vacant(self, slot: int) -> None:
        """Record that the worker has ended."""
        self.end_call(slot)
        self._memory[slot] = _VACANT

    def begin_call(self, slot: int, call: Running) -> None:
        """Record what the worker serves."""
        _CALL.pack_into(self._memory, self._calls_at + slot * _CALL.size, *call)

    def end_call(self, slot: int) -> None:
        """Record that the worker's call changes nothing any more."""
        self.begin_call(slot, _NOTHING)

    def others(self, slot: int) -> list[Running]:
        """Return the calls that other workers serve."""
        calls = enumerate(_CALL.iter_unpack(self._memory[self._calls_at :]))
        return [Running(*call) for number, call in calls if number != slot and call != _NOTHING]

    def count_call(self, slot: int) -> None:
        """Count a call that the worker has served."""
        _COUNT.pack_into(self._memory, self._counts_at + slot * _COUNT.size, self.calls_in(slot) + 1)

    def is_idle(self, slot: int) -> bool:
        """Return whether the slot's worker is idle, or was idle when it ended."""
        return self._memory[slot : slot + 1] == _IDLE_STATE

    def calls_in(self, slot: int) -> int:
        """Return the number of calls that all workers in this slot have served."""
        count: int = _COUNT.unpack_from(self._memory, self._counts_at + slot * _COUNT.size)[0]
        return count

    @property
    def idle(self) -> int:
        """The number of idle workers."""
        return self._states().count(_IDLE)

    @property
    def busy(self) -> int:
        """The number of workers with a connection or a background task."""
        return self._states().count(_BUSY) + self.background

    @property
    def background(self) -> int:
        """The number of workers that have responded and wait for a background task."""
        return self._states().count(_BACKGROUND)

    @property
    def calls(self) -> int:
        """The number of calls served since the scoreboard was created."""
        return sum(count for (count,) in _COUNT.iter_unpack(self._memory[self._counts_at : self._calls_at]))

    def _states(self) -> bytes:
        return self._memory[: self._slots]


class Slot(NamedTuple):
    """A worker's slot; the worker writes to the descriptor `alarm` when no other worker is idle."""

    scoreboard: Scoreboard
    number: int
    alarm: int

    def set_busy(self) -> None:
        """Record that the worker has a connection."""
        if not self.scoreboard.set_busy(self.number):
            # A full pipe is readable too.
            with suppress(OSError):
                os.write(self.alarm, b"!")

    def set_background(self) -> None:
        """Record that the worker has responded, and takes no call until its background task has ended."""
        self.scoreboard.set_background(self.number)

    def begin_call(self, call: Running) -> None:
        """Record what the worker serves."""
        self.scoreboard.begin_call(self.number, call)

    def end_call(self) -> None:
        """Record that the worker's call changes nothing any more."""
        self.scoreboard.end_call(self.number)

    def others(self) -> list[Running]:
        """Return the calls that other workers serve."""
        return self.scoreboard.others(self.number)

    def count_call(self) -> None:
        """Count a call that the worker has served."""
        self.scoreboard.count_call(self.number)

    def set_idle(self) -> None:
        """Record that the worker waits for a call."""
        self.scoreboard.set_idle(self.number)

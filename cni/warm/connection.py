"""Where a worker meets its callers: the messages of the protocol, and being the caller's process.

`build/door` does it, as Python would take up to 0.35 ms more in a worker whose memory is in no cache;
`build/launcher/protocol.md` is the text for both sides. A process has one door, and one call at a time.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = "door.so"
# What a door gives in place of a call, as in door.c.
GONE, TAKEN, STRANGER, SLOW, ALIEN, OTHER_BUILD, NO_GO, INTERRUPTED, FAILED = range(0, -9, -1)
_REASONS = {
    SLOW: "it did not come in time",
    ALIEN: "it is none of this protocol",
    OTHER_BUILD: "it is for another build",
    NO_GO: "the launcher has not sent its descriptors",
    FAILED: "the connection has failed, or the working directory is none",
}


class RefusedError(Exception):
    """What came is no call for us; nothing was done."""


class Call(NamedTuple):
    """One call as the launcher sends it; `variables` are "NAME=value" texts, each with a NUL at its end."""

    name: str
    executable: str
    variables: str

    def env(self) -> dict[str, str]:
        """Read the variables as a new process does: the first of a name counts, nameless ones do not."""
        texts = reversed(self.variables.split("\0"))
        return {name: value for name, sign, value in (each.partition("=") for each in texts) if name and sign}


def load(path: Path) -> ctypes.PyDLL:
    """Load door.c, compiled. Raises OSError."""
    # PyDLL: the process has one thread during a call, so that nobody waits for the interpreter's lock.
    return ctypes.PyDLL(str(path))


class Door:
    """The door of this process: takes calls of a build from a listening socket.

    What may wait ends when a signal's handler raises.
    """

    def __init__(self, library: ctypes.PyDLL, listener: int, build: str) -> None:
        self._library = library
        self._build = os.fsencode(build)
        self._text = ctypes.c_char_p()
        self._where = ctypes.byref(self._text)
        library.door_difference.restype = ctypes.c_char_p
        if library.door_open(listener, self._build) < 0:
            raise OSError("there is no /dev/null or no /proc, or seccomp filters what this process may do")
        self.look: Callable[[], int] = library.door_look
        self.stop: Callable[[], int] = library.door_stop
        self.watch: Callable[[], int] = library.door_watch
        self.unwatch: Callable[[], None] = library.door_unwatch
        self.leave: Callable[[], None] = library.door_leave
        self.begin_answer: Callable[[], None] = library.door_begin_answer
        self.answer: Callable[[int], None] = library.door_answer
        self.close: Callable[[], None] = library.door_close

    def take(self) -> int:
        """Let the next caller in, without waiting; gives what `call` needs, TAKEN where there is none."""
        return self._patiently(self._library.door_take, self._where)

    def wait(self, seconds: int) -> int:
        """Wait for the call of one that was SLOW."""
        return self._patiently(self._library.door_wait, seconds, self._where)

    def call(self, found: int) -> Call | None:
        """Give the call, which the launcher knows to be accepted; None when it has gone again."""
        if found == GONE:
            return None
        if found < 0:
            raise self._refused(found)
        return Call(*os.fsdecode(ctypes.string_at(self._text, found)).split("\0", 2))

    def begin(self, seconds: int) -> None:
        """Wait for the caller's descriptors and be its process: with them as 0, 1, 2, its folder and umask.

        Raises RefusedError when the launcher does not want the call run any more, or may do less than we may.
        """
        if (found := self._patiently(self._library.door_begin, seconds)) < 0:
            raise self._refused(found)

    def _refused(self, found: int) -> RefusedError:
        if found != STRANGER:
            return RefusedError(_REASONS[found])
        user, process = self._library.door_peer(1), self._library.door_peer(0)
        what = self._library.door_difference().decode().rstrip(":")
        return RefusedError(
            f"it is of user {user}, process {process}, whose {what} is not that of the worker"
        )

    def _patiently(self, function: Callable[..., int], *args: object) -> int:
        while (found := function(*args)) == INTERRUPTED:
            pass
        return found

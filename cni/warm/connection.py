"""A worker's connection to a launcher: the messages of the protocol, and adopting the caller's context.

`build/connection` implements it in C: in a worker whose memory is in no cache, Python takes 0.35 ms longer.
`build/launcher/protocol.md` specifies both sides. A process has one `Connection`, and one call at a time.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE = "connection.so"
# Values in place of a request's length, as in connection.c.
CLOSED, NONE_PENDING, PEER_DIFFERS, NO_REQUEST_YET, MALFORMED, OTHER_BUILD, NO_GO, INTERRUPTED, FAILED = (
    range(0, -9, -1)
)
_REASONS = {
    NO_REQUEST_YET: "no request arrived in time",
    MALFORMED: "the message is not a request of this protocol",
    OTHER_BUILD: "the request is for another build",
    NO_GO: "the launcher did not send its descriptors",
    FAILED: "the connection failed, or the working directory is not a directory",
}


class RefusedError(Exception):
    """The message is not a request for this worker; no plugin ran."""


class PluginCall(NamedTuple):
    """A launcher's request; `variables` are "NAME=value" strings, each with a NUL at its end."""

    name: str
    executable: str
    variables: str

    def env(self) -> dict[str, str]:
        """Return the variables as a new process reads them: of equal names the first, none without a name."""
        strings = reversed(self.variables.split("\0"))
        return {
            name: value for name, sign, value in (each.partition("=") for each in strings) if name and sign
        }


def load(path: Path) -> ctypes.PyDLL:
    """Load the compiled connection.c. Raises OSError."""
    # PyDLL keeps the interpreter's lock: the process has one thread during a call, so no thread waits for it.
    return ctypes.PyDLL(str(path))


class Connection:
    """Accepts launchers of a build from a listening socket, one after another.

    Methods that wait end when a signal handler raises.
    """

    def __init__(self, library: ctypes.PyDLL, listener: int, build: str) -> None:
        self._library = library
        self._build = os.fsencode(build)
        self._text = ctypes.c_char_p()
        self._text_pointer = ctypes.byref(self._text)
        library.connection_difference.restype = ctypes.c_char_p
        if library.connection_setup(listener, self._build) < 0:
            raise OSError("/dev/null or /proc is missing, or seccomp filters this process")
        self.poll: Callable[[], int] = library.connection_poll
        self.stop_signal: Callable[[], int] = library.connection_stop_signal
        self.watch: Callable[[], int] = library.connection_watch
        self.unwatch: Callable[[], None] = library.connection_unwatch
        self.restore_context: Callable[[], None] = library.connection_restore_context
        self.peer_process: Callable[[], int] = library.connection_peer_process
        self.take_response_token: Callable[[], None] = library.connection_take_response_token
        self.send_status: Callable[[int], None] = library.connection_send_status
        self.close: Callable[[], None] = library.connection_close

    def accept(self) -> int:
        """Accept the next launcher without waiting. Return the argument of `read`, or NONE_PENDING."""
        return self._retry(self._library.connection_accept, self._text_pointer)

    def receive(self, seconds: int) -> int:
        """Wait for the request after NO_REQUEST_YET. Return the argument of `read`."""
        return self._retry(self._library.connection_receive, seconds, self._text_pointer)

    def read(self, length: int) -> PluginCall | None:
        """Return the request, which has been accepted; None if the launcher has closed the connection.

        Raises RefusedError if `length` is one of the negative values above.
        """
        if length == CLOSED:
            return None
        if length < 0:
            raise self._refused(length)
        return PluginCall(*os.fsdecode(ctypes.string_at(self._text, length)).split("\0", 2))

    def adopt_context(self, seconds: int) -> None:
        """Wait for the caller's descriptors; adopt them as 0, 1, 2, and its working directory and umask.

        Raises RefusedError if the launcher has given the call up, or has other rights than this process.
        """
        if (status := self._retry(self._library.connection_adopt_context, seconds)) < 0:
            raise self._refused(status)

    def _refused(self, status: int) -> RefusedError:
        if status != PEER_DIFFERS:
            return RefusedError(_REASONS[status])
        user, process = self._library.connection_peer_user(), self.peer_process()
        difference = self._library.connection_difference().decode().rstrip(":")
        return RefusedError(
            f"it is of user {user}, process {process}, whose {difference} is not that of the worker"
        )

    def _retry(self, function: Callable[..., int], *args: object) -> int:
        while (status := function(*args)) == INTERRUPTED:
            pass
        return status

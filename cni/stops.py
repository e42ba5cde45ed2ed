"""Turn signals that ask a call to stop into an exception, raised only at safe points.

The first SIGTERM or SIGINT raises CniError 11, so that an ADD undoes itself. Later signals are blocked, also
for child processes. The exception never interrupts an undo, nor code in a container's network namespace.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    F = TypeVar("F", bound=Callable[..., object])

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_UNDONE = "An ADD was rolled back. Call the command again."

_stops: list[CniError] = []
# Stops that wait for `release`.
_held: list[CniError] = []
_holds = 0
_shielded: set[CodeType] = set()


def listen() -> None:
    """Handle the signals from now on."""
    for number in SIGNALS:
        signal.signal(number, stop)


def forget() -> None:
    """Reset for the next call of this process. The kernel then delivers signals that were blocked."""
    if _stops:
        _stops.clear()
        _held.clear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def requested() -> CniError | None:
    """Return the stop of this call, None if there is none. A step may have caught the exception."""
    return _stops[0] if _stops else None


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise CniError 11 unless the call already stops."""
    # Not SIG_IGN: the interpreter would print a traceback for each signal that it received before.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if _stops:
        return
    error = CniError(Code.TRY_AGAIN, f"interrupted by {signal.Signals(number).name}", _UNDONE)
    _stops.append(error)
    if _is_shielded(frame):
        return
    if _holds:
        _held.append(error)
        return
    raise error


def shielded(function: F) -> F:
    """Decorate a function so that no stop is raised in it or in the functions that it calls.

    Such a stop is not raised later either. A function that begins with `hold` can be interrupted before that.
    """
    _shielded.add(function.__code__)
    return function


def hold() -> None:
    """Defer stops until `release`."""
    global _holds  # noqa: PLW0603 - one for the process, as signals
    _holds += 1


def release() -> None:
    """End a `hold`. Raise CniError 11 if a stop was deferred."""
    global _holds  # noqa: PLW0603
    _holds -= 1
    if _held and not _holds:
        raise _held.pop()


def _is_shielded(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _shielded:
        frame = frame.f_back
    return frame is not None

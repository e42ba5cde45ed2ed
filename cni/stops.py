"""Signals that ask a call to stop, as an exception that is raised where it does no harm.

The first SIGTERM or SIGINT raises CniError 11, so that an ADD undoes itself. Later ones are blocked, also for
children. The exception does not cut an undo short, and it is not raised in a container's network namespace.
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
_UNDONE = "an ADD was undone; what else was called may be called again"

_stops: list[CniError] = []
# Stops that were held back and are not raised yet.
_held: list[CniError] = []
_holds = 0
_shielded: set[CodeType] = set()


def listen() -> None:
    """Let the signals stop this process's call."""
    for number in SIGNALS:
        signal.signal(number, stop)


def forget() -> None:
    """Begin another call in this process. A signal that was blocked meanwhile is delivered now."""
    if _stops:
        _stops.clear()
        _held.clear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def requested() -> CniError | None:
    """Return the stop of this call, if there is one: a step may have caught it as a failure of its own."""
    return _stops[0] if _stops else None


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise CniError 11 unless the call is stopping already."""
    # Not SIG_IGN: the interpreter prints a traceback for each signal that it has received before.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if _stops:
        return
    error = CniError(Code.TRY_AGAIN, f"stopped by {signal.Signals(number).name}", _UNDONE)
    _stops.append(error)
    if _is_shielded(frame):
        return
    if _holds:
        _held.append(error)
        return
    raise error


def shielded(function: F) -> F:
    """Let no stop be raised in a function or in what it calls: to decorate it with.

    A stop is not raised afterwards either. A function that begins with `hold` can be interrupted before that.
    """
    _shielded.add(function.__code__)
    return function


def hold() -> None:
    """Hold a stop back until `release`."""
    global _holds  # noqa: PLW0603 - of the process, as signals are
    _holds += 1


def release() -> None:
    """End a `hold`. Raise CniError 11 if a stop was held back."""
    global _holds  # noqa: PLW0603
    _holds -= 1
    if _held and not _holds:
        raise _held.pop()


def _is_shielded(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _shielded:
        frame = frame.f_back
    return frame is not None

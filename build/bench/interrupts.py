"""Ctrl-C and SIGTERM: end all processes, clean up, and then end the run.

Most of the time a child on some host does the work. This process forwards the signal to it. The child ends
its plugins and returns the KeyboardInterrupt as its outcome. Without the signal it would outlive the run.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from cni.warm import control

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

P = ParamSpec("P")
T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Handle signals that ask this process to stop. After a second signal it still cleans up."""

    def __init__(self) -> None:
        self._is_waiting = False
        self._was_asked = False

    def listen(self) -> None:
        """Raise KeyboardInterrupt from now on when asked to stop."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def wait_for(
        self, call: Callable[..., T], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `call(function, ...)`, which runs the function in a child, and wait for its end in any case."""
        self._is_waiting = True
        try:
            result = call(_run_in_child, function, *args, **kwargs)
        finally:
            self._is_waiting = False
        if self._was_asked:
            # The signal came before the child could receive it.
            raise KeyboardInterrupt
        return result

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        _ignore()
        self._was_asked = True
        for child in control.children(os.getpid()):
            # The sender may have signalled it too. Processes that hold hosts ignore the signal.
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)
        if not self._is_waiting:
            raise KeyboardInterrupt


def _run_in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    for number in SIGNALS:
        signal.signal(number, _stop)
    return function(*args, **kwargs)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    _ignore()
    raise KeyboardInterrupt


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


INTERRUPTS = Interrupts()

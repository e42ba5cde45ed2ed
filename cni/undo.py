"""Steps that take back what a failing ADD has done so far."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from cni.log import note
from cni.stops import shielded

if TYPE_CHECKING:
    from collections.abc import Callable


class Undo:
    """The inverses of what was done, run newest first unless `cancel` was called.

    Register the inverse *before* the change is made, so that a change cut short is undone as well: an
    inverse must therefore succeed when there is nothing to take back. One that fails is told on stderr
    and the rest still run. Signals do not cut them short.
    """

    def __init__(self) -> None:
        self._steps = ExitStack()

    def add(self, what: str, step: Callable[..., object], *args: object) -> None:
        """Register `step(*args)`; `what` tells in the infinitive what it does ("remove veth12ab")."""
        self._steps.callback(_attempt, what, step, *args)

    def cancel(self) -> None:
        """Forget all steps: the work succeeded."""
        self._steps.pop_all()

    def __enter__(self) -> Self:
        return self

    @shielded
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.cancel()
        self._steps.close()


def _attempt(what: str, step: Callable[..., object], *args: object) -> None:
    try:
        step(*args)
    except Exception as error:  # noqa: BLE001 - whatever it is, the remaining steps must run
        note(f"pycni: could not undo: {what}: {error}")

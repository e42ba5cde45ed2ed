"""Undo steps of an ADD that fails."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from cni.log import note
from cni.stops import shielded

if TYPE_CHECKING:
    from collections.abc import Callable


class Undo:
    """The inverses of changes, which run newest first unless `cancel` was called.

    Register the inverse *before* the change, so that an interrupted change is undone as well. An inverse must
    therefore succeed when there is nothing to undo. If an inverse fails, that is logged and the others still
    run. Signals do not interrupt them.
    """

    def __init__(self) -> None:
        self._steps = ExitStack()

    def add(self, action: str, step: Callable[..., object], *args: object) -> None:
        """Register `step(*args)`; `action` names it in the infinitive ("remove veth12ab")."""
        self._steps.callback(_attempt, action, step, *args)

    def cancel(self) -> None:
        """Drop all steps, after success."""
        self._steps.pop_all()

    def __enter__(self) -> Self:
        return self

    @shielded
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.cancel()
        self._steps.close()


def _attempt(action: str, step: Callable[..., object], *args: object) -> None:
    try:
        step(*args)
    except Exception as error:  # noqa: BLE001 - the remaining steps must run after any error
        note(f"pycni: could not undo: {action}: {error}")

"""The outcome of a repair, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Repaired:
    """The steps that were done, in words, and the errors of those that failed."""

    done: list[str] = field(default_factory=list)
    failed: list[CniError] = field(default_factory=list)

    def attempt(self, step: Callable[[Undo], str]) -> None:
        """Run a step, which returns in words what it did, "" for nothing. A step that fails is undone."""
        try:
            with Undo() as undo:
                text = step(undo)
        except CniError as error:
            self.failed.append(error)
        except OSError as error:
            self.failed.append(CniError(Code.IO_FAILURE, str(error)))
        else:
            self.done += [text] if text else []

    def extend(self, other: Repaired) -> None:
        """Add the outcome of another plugin."""
        self.done += other.done
        self.failed += other.failed

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"repaired": self.done, "failed": [each.to_dict() for each in self.failed]}


def parse(answer: dict[str, Any]) -> Repaired:
    """Read the result of `to_dict`."""
    failed = [
        CniError(int(each.get("code", Code.INTERNAL)), str(each.get("msg", "")), str(each.get("details", "")))
        for each in answer.get("failed") or []
        if isinstance(each, dict)
    ]
    return Repaired([str(each) for each in answer.get("repaired") or []], failed)

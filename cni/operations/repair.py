"""What a repair did and what it could not do, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(slots=True)
class Repaired:
    """What was made again, in words, and the errors of what could not be."""

    done: list[str] = field(default_factory=list)
    failed: list[CniError] = field(default_factory=list)

    def attempt(self, step: Callable[[Undo], str]) -> None:
        """Take a step that says what it did, "" for nothing; one that fails is undone and noted."""
        try:
            with Undo() as undo:
                told = step(undo)
        except CniError as error:
            self.failed.append(error)
        except OSError as error:
            self.failed.append(CniError(Code.IO_FAILURE, str(error)))
        else:
            self.done += [told] if told else []

    def extend(self, other: Repaired) -> None:
        """Add what another plugin tells."""
        self.done += other.done
        self.failed += other.failed

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"repaired": self.done, "failed": [each.to_dict() for each in self.failed]}


def parse(told: dict[str, Any]) -> Repaired:
    """Read what `to_dict` gave."""
    failed = [
        CniError(int(each.get("code", Code.INTERNAL)), str(each.get("msg", "")), str(each.get("details", "")))
        for each in told.get("failed") or []
        if isinstance(each, dict)
    ]
    return Repaired([str(each) for each in told.get("repaired") or []], failed)

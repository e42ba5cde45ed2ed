"""Cost over the number of attachments, and of leases: select the measured rows, as series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.scenes import CHAIN, IPAM
from bench.sides import GO, GONE, IPTABLES, NFTABLES, WARM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.rows import Row

VERBS = ("ADD", "DEL")


class Line(NamedTuple):
    """A compared side: its name, its class in the style sheet, and the values of its rows."""

    label: str
    kind: str
    row: Mapping[str, Any]


class Curve(NamedTuple):
    """A family of lines over the same numbers; `file` is the picture's name, `timed` what a time is of."""

    file: str
    title: str
    counted: str
    timed: str
    row: Mapping[str, Any]
    lines: tuple[Line, ...]


class Series(NamedTuple):
    """A measured line: numbers of attachments or leases, and the median in ms for each."""

    line: Line
    verb: str
    medians: dict[int, float]

    @property
    def growth(self) -> float | None:
        """Return the median at the largest number divided by that at the least; None for one point."""
        numbers = sorted(self.medians)
        return self.medians[numbers[-1]] / self.medians[numbers[0]] if len(numbers) > 1 else None


_GO = Line("Go plugins, iptables", "theirs", {"suite": GO})
CURVES = (
    Curve(
        "benchmarks-attachments.svg",
        "Cost of an attachment, by the number of those there",
        "attachments",
        "the chain",
        {"work": CHAIN, "at_once": 1, "rules": 0},
        (
            _GO,
            Line("ours, iptables", IPTABLES, {"suite": WARM, "backend": IPTABLES}),
            Line("ours, nftables", NFTABLES, {"suite": WARM, "backend": NFTABLES}),
        ),
    ),
    Curve(
        "benchmarks-leases.svg",
        "Cost of an address from host-local, by the number of those taken",
        "leases",
        "one call of host-local",
        {"work": IPAM},
        (_GO._replace(label="Go plugin"), Line("ours", "both", {"suite": WARM})),
    ),
)


def find_series(rows: list[Row], curve: Curve, verb: str) -> list[Series]:
    """Return the lines of a curve for a verb; those that were not measured are left out."""
    found = [Series(line, verb, _medians(rows, curve, line, verb)) for line in curve.lines]
    return [each for each in found if each.medians]


def list_numbers(rows: list[Row], curve: Curve) -> list[int]:
    """Return all numbers that were measured."""
    return sorted(
        {number for verb in VERBS for each in find_series(rows, curve, verb) for number in each.medians}
    )


def _medians(rows: list[Row], curve: Curve, line: Line, verb: str) -> dict[int, float]:
    wanted = {**curve.row, **line.row, "verb": verb}
    fits = (row for row in rows if all(getattr(row, key) == value for key, value in wanted.items()))
    # DEL that waits for the kernel's acknowledgement is another line, which is not drawn.
    return {row.there: row.median_ms for row in fits if row.answer in {"", GONE}}

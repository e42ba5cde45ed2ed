"""A curve as a picture: a panel for each verb, time over number, both logarithmic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bench.curves import VERBS, find_series, list_numbers
from bench.svg import WIDTH, document, heading, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.curves import Curve, Series
    from bench.rows import Row

_HEIGHT, _TOP, _BOTTOM = 430, 130, 370
_LEFT, _BETWEEN, _RIGHT = 60, 100, 60
_PANEL = (WIDTH - _LEFT - _BETWEEN - _RIGHT) / len(VERBS)
_LEGEND_WIDTH = 190
_LABEL_HEIGHT = 13
_DIGITS = (1, 2, 5)


class _Axis(NamedTuple):
    """Values to places, in equal steps for equal factors; 0 is as far from the least value as its tenth."""

    low: float
    high: float
    start: float
    end: float
    zero: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> _Axis:
        listed = sorted(values) or [1]
        positive = [each for each in listed if each > 0] or [1]
        zero = positive[0] / 10
        low = math.log10(zero if listed[0] <= 0 else positive[0])
        return cls(low, max(math.log10(positive[-1]), low + 0.1), start, end, zero)

    def place(self, value: float) -> float:
        """Give the place of a value."""
        share = (math.log10(value or self.zero) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def draw(rows: list[Row], curve: Curve, subtitle: str) -> str:
    """Give the picture as SVG; lines that were not measured are left out."""
    numbers = list_numbers(rows, curve)
    panels = [find_series(rows, curve, verb) for verb in VERBS]
    times = [time for series in panels for each in series for time in each.medians.values()]
    # Some room above and below the lines.
    y = _Axis.over([each * factor for each in times for factor in (0.7, 1.4)], _BOTTOM, _TOP)
    parts = [*heading(curve.title, subtitle, _HEIGHT), *_legend(curve)]
    for index, (verb, series) in enumerate(zip(VERBS, panels, strict=True)):
        left = _LEFT + index * (_PANEL + _BETWEEN)
        x = _Axis.over(numbers, left + 12, left + _PANEL - 12)
        parts += [*_grid(verb, numbers, x, y, left), *_lines(series, x, y)]
    parts.append(text(WIDTH / 2, _HEIGHT - 16, f"{curve.counted} there before", "quiet", "middle"))
    return document(curve.title, WIDTH, _HEIGHT, parts)


def _legend(curve: Curve) -> Iterator[str]:
    for index, line in enumerate(curve.lines):
        x = _LEFT + index * _LEGEND_WIDTH
        yield f'<polyline class="{line.kind}" points="{x},80 {x + 26},80"/>'
        yield text(x + 34, 84, line.label, "quiet")


def _grid(verb: str, numbers: Sequence[int], x: _Axis, y: _Axis, left: float) -> Iterator[str]:
    yield text(left, _TOP - 14, f"{verb}, ms", "value")
    for time in _ticks(y):
        place, right = y.place(time), left + _PANEL
        yield f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield text(left - 8, place + 4, f"{time:g}", "quiet", "end")
    for number in numbers:
        place = x.place(number)
        yield f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield text(place, _BOTTOM + 18, f"{number:,}", "quiet", "middle")


def _ticks(y: _Axis) -> list[float]:
    every = [digit * 10.0**power for power in range(-3, 7) for digit in _DIGITS]
    return [each for each in every if y.low <= math.log10(each) <= y.high]


def _lines(series: Sequence[Series], x: _Axis, y: _Axis) -> Iterator[str]:
    labels: list[tuple[float, float, str]] = []
    for each in series:
        points = [(x.place(number), y.place(time)) for number, time in sorted(each.medians.items())]
        kind = each.line.kind
        yield f'<polyline class="{kind}" points="{" ".join(f"{at:.1f},{up:.1f}" for at, up in points)}"/>'
        for at, up in points:
            yield f'<circle class="{kind}" cx="{at:.1f}" cy="{up:.1f}" r="3"/>'
        labels.append((*points[-1], f"{each.medians[max(each.medians)]:.1f}"))
    for at, up, words in _apart(labels):
        yield text(at + 8, up + 4, words, "value")


def _apart(labels: Iterable[tuple[float, float, str]]) -> Iterator[tuple[float, float, str]]:
    """Move figures that would be drawn over each other apart, from the top downwards."""
    lowest = -math.inf
    for at, up, words in sorted(labels, key=lambda label: label[1]):
        lowest = max(up, lowest + _LABEL_HEIGHT)
        yield at, lowest, words

"""Draw a curve: a panel for each verb, time over number, both logarithmic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.curves import VERBS, find_series, list_numbers
from bench.svg import WIDTH, LogScale, document, heading, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.curves import Curve, Series
    from bench.rows import Row

_HEIGHT, _TOP, _BOTTOM = 430, 130, 370
_LEFT, _BETWEEN, _RIGHT = 60, 100, 60
_PANEL = (WIDTH - _LEFT - _BETWEEN - _RIGHT) / len(VERBS)
_LEGEND_WIDTH = 190
_LABEL_HEIGHT = 13


def _scale(values: Iterable[float], start: float, end: float) -> tuple[LogScale, float]:
    """Return the scale of an axis, and the value that stands for 0: a tenth of the least positive value."""
    listed = sorted(values) or [1]
    positive = [each for each in listed if each > 0] or [1]
    zero = positive[0] / 10
    low = zero if listed[0] <= 0 else positive[0]
    return LogScale(low, max(positive[-1], low * 10**0.1), start, end), zero


def draw(rows: list[Row], curve: Curve, subtitle: str) -> str:
    """Return the picture as SVG, without lines that were not measured."""
    numbers = list_numbers(rows, curve)
    panels = [find_series(rows, curve, verb) for verb in VERBS]
    times = [time for series in panels for each in series for time in each.medians.values()]
    # Some space above and below the lines.
    y, _ = _scale([each * factor for each in times for factor in (0.7, 1.4)], _BOTTOM, _TOP)
    parts = [*heading(curve.title, subtitle, _HEIGHT), *_legend(curve)]
    for index, (verb, series) in enumerate(zip(VERBS, panels, strict=True)):
        left = _LEFT + index * (_PANEL + _BETWEEN)
        x, zero = _scale(numbers, left + 12, left + _PANEL - 12)
        places = {number: x.place(number or zero) for number in numbers}
        parts += [*_grid(verb, places, y, left), *_lines(series, places, y)]
    parts.append(text(WIDTH / 2, _HEIGHT - 16, f"{curve.counted} there before", "quiet", "middle"))
    return document(curve.title, WIDTH, _HEIGHT, parts)


def _legend(curve: Curve) -> Iterator[str]:
    for index, line in enumerate(curve.lines):
        x = _LEFT + index * _LEGEND_WIDTH
        yield f'<polyline class="{line.kind}" points="{x},80 {x + 26},80"/>'
        yield text(x + 34, 84, line.label, "quiet")


def _grid(verb: str, places: Mapping[int, float], y: LogScale, left: float) -> Iterator[str]:
    yield text(left, _TOP - 14, f"{verb}, ms", "value")
    for time in y.ticks():
        place, right = y.place(time), left + _PANEL
        yield f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield text(left - 8, place + 4, f"{time:g}", "quiet", "end")
    for number, place in places.items():
        yield f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield text(place, _BOTTOM + 18, f"{number:,}", "quiet", "middle")


def _lines(series: Sequence[Series], places: Mapping[int, float], y: LogScale) -> Iterator[str]:
    labels: list[tuple[float, float, str]] = []
    for each in series:
        points = [(places[number], y.place(time)) for number, time in sorted(each.medians.items())]
        kind = each.line.kind
        yield f'<polyline class="{kind}" points="{" ".join(f"{at:.1f},{up:.1f}" for at, up in points)}"/>'
        for at, up in points:
            yield f'<circle class="{kind}" cx="{at:.1f}" cy="{up:.1f}" r="3"/>'
        labels.append((*points[-1], f"{each.medians[max(each.medians)]:.1f}"))
    for at, up, words in _apart(labels):
        yield text(at + 8, up + 4, words, "value")


def _apart(labels: Iterable[tuple[float, float, str]]) -> Iterator[tuple[float, float, str]]:
    """Move overlapping labels apart, from the top downwards."""
    lowest = -math.inf
    for at, up, words in sorted(labels, key=lambda label: label[1]):
        lowest = max(up, lowest + _LABEL_HEIGHT)
        yield at, lowest, words

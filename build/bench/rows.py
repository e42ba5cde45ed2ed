"""Rows of measurements: times of one verb of one side in one scene, and their ratio to Go's."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.sides import ACK, GO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.scenes import Scene
    from bench.sides import Side

Times = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """Wall times in ms; `ratio` is Go's median by this one, so that 10 is ten times as fast as Go.

    There is none where Go was not measured.
    """

    scene: str
    work: str
    at_once: int
    there: int
    rules: int
    verb: str
    suite: str
    backend: str
    answer: str
    label: str
    median_ms: float
    p90_ms: float
    ratio: float | None
    first_ms: float
    times_ms: list[float]


def make_rows(scene: Scene, first: Sequence[Mapping[str, float]], times: Sequence[Times]) -> list[Row]:
    """Return the rows of a scene from the seconds of each side: of its first round, and of all others."""
    go = next((index for index, side in enumerate(scene.sides) if side.suite == GO), None)
    medians = {} if go is None else {verb: statistics.median(each) for verb, each in times[go].items()}
    return [
        _row(scene, side, verb, [first[index][verb], *seconds], medians.get(verb))
        for verb in times[0]
        for index, side in enumerate(scene.sides)
        # The two kinds of DEL differ in this key only.
        if (seconds := times[index].get(verb)) and (side.answer != ACK or verb == "DEL")
    ]


def _row(scene: Scene, side: Side, verb: str, seconds: list[float], go_median: float | None) -> Row:
    first, *others = seconds
    median = statistics.median(others)
    return Row(
        scene=scene.title,
        work=scene.work,
        at_once=scene.at_once,
        there=scene.there + side.beside,
        rules=scene.rules,
        verb=verb,
        suite=side.suite,
        backend=side.backend,
        answer=side.answer if verb == "DEL" else "",
        label=side.label,
        median_ms=_ms(median),
        p90_ms=_ms(percentile(others, 0.9)),
        ratio=None if go_median is None else round(go_median / median, 4),
        first_ms=_ms(first),
        times_ms=[_ms(each) for each in others],
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def show_ms(milliseconds: float) -> str:
    """Return a time with one decimal, or with three if it is shorter than half a millisecond."""
    return f"{milliseconds:.1f}" if milliseconds >= 0.5 else f"{milliseconds:.3f}"


def _ms(seconds: float) -> float:
    # A tenth of a microsecond: queries take ten.
    return round(seconds * 1000, 4)

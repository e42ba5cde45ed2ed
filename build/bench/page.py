"""Write docs/benchmarks.md with the results of a run."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bench.curves import CURVES, VERBS, find_series, list_numbers
from bench.rows import show_ms
from bench.sides import GO
from bench.targets import MISSED, REACHED, UNKNOWN, show_ratio, to_mb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.curves import Series
    from bench.report import Report
    from bench.rows import Row

_METHOD = Path(__file__).with_name("method.md")
_MARKS = {REACHED: "✔ reached", MISSED: "✘ not reached", UNKNOWN: "not measured"}


def write(report: Report, picture: str, settle_ms: int) -> str:
    """Return the page as Markdown; `picture` is the file name of the drawing."""
    parts = [
        "# Benchmarks\n",
        f"{report.subtitle}. Made by `make bench`, as all of this page: ratios of one run, not promises.\n",
        f"![Times as fast as the Go plugins]({picture})\n",
        "## Targets\n",
        _table(
            ["", "backend", ">wanted", ">seen", ""],
            (
                [each.title, each.backend, each.wanted, each.seen, _MARKS[each.state]]
                for each in report.verdicts
            ),
        ),
        *_curves(report.rows),
        "## All figures\n",
        *_scenes(report.rows),
        *_processes(report),
        *_memory(report),
        "## Plugins and machine\n",
        _table(["", ""], (each for each in (report.suites | report.machine).items() if each[1])),
        _METHOD.read_text().format(settle_ms=settle_ms),
    ]
    return "\n".join(parts)


def _curves(rows: list[Row]) -> Iterator[str]:
    for curve in CURVES:
        numbers = list_numbers(rows, curve)
        yield f"## {curve.title}\n"
        yield f"![{curve.title}]({curve.file})\n"
        yield (
            f"Median in ms of {curve.timed}, by the number of {curve.counted} there before; the last column"
            " is the last time by the first.\n"
        )
        yield _table(
            ["", "", *(f">{number:,}" for number in numbers), ">grows"],
            (_curve_cells(each, numbers) for verb in VERBS for each in find_series(rows, curve, verb)),
        )
        if any(len(each.medians) < len(numbers) for each in find_series(rows, curve, VERBS[0])):
            yield "Where nothing stands the Go plugins were left out: they take too long to make so many.\n"


def _curve_cells(series: Series, numbers: Sequence[int]) -> list[str]:
    times = [f"{series.medians[number]:.1f}" if number in series.medians else "" for number in numbers]
    return [
        series.verb,
        series.line.label,
        *times,
        f"**{show_ratio(series.growth)}**" if series.growth else "",
    ]


def _scenes(rows: list[Row]) -> Iterator[str]:
    columns = ["", "", ">ratio", ">median ms", ">p90 ms", ">first ms", ">rounds"]
    for title, of_scene in groupby(rows, key=lambda row: row.scene):
        yield f"### {title[0].upper()}{title[1:]}\n"
        yield _table(columns, map(_cells, of_scene))


def _cells(row: Row) -> list[str]:
    times = [show_ms(each) for each in (row.median_ms, row.p90_ms, row.first_ms)]
    shown = "1" if row.suite == GO else show_ratio(row.ratio)
    ratio = f"**{shown}**" if shown and row.suite != GO else shown
    return [row.verb, row.label, ratio, *times, str(len(row.times_ms))]


def _processes(report: Report) -> Iterator[str]:
    yield "## Processes started\n"
    yield (
        "Besides the plugins themselves, by one chain; workers that the server starts for the next calls"
        " included. Counted by the kernel's process connector, in rounds of their own.\n"
    )
    rows = (
        [label, *([counts, "", ""] if isinstance(counts, str) else map(str, counts.values()))]
        for label, counts in report.processes.items()
    )
    yield _table(["", ">ADD", ">CHECK", ">DEL"], rows)


def _memory(report: Report) -> Iterator[str]:
    yield "## Memory\n"
    yield (
        "Of the server and its idle workers after some calls, as PSS: memory shared by several processes"
        " counts once. At rest: when nobody calls for half a minute, workers that have served calls are"
        " replaced by new ones. The Go plugins keep nothing between calls, nor do ours when cold.\n"
    )
    rows = (
        [
            each["side"],
            f"{to_mb(each['server_kib']):.1f}",
            " + ".join(f"{to_mb(kib):.1f}" for kib in each["workers_kib"]),
            f"**{to_mb(each['together_kib']):.1f}**",
        ]
        for each in report.memory
    )
    yield _table(["", ">server MB", ">workers MB", ">together MB"], rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        _line([column.lstrip(">") for column in columns]),
        _line(["---:" if column.startswith(">") else "---" for column in columns]),
        *map(_line, rows),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

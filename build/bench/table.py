"""Show the figures of a run on the terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench.rows import show_ms
from bench.sides import GO
from bench.targets import MISSED, REACHED, show_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.rows import Row
    from bench.targets import Verdict

_STYLES = {REACHED: "green", MISSED: "bold red"}


def show_rows(rows: list[Row]) -> Iterator[Table]:
    """Yield a table for each scene."""
    for title, of_scene in groupby(rows, key=lambda row: row.scene):
        table = _table(title, "verb", "who", ">ratio", ">median ms", ">p90 ms", ">first ms")
        verb = ""
        for row in of_scene:
            if verb and row.verb != verb:
                table.add_section()
            verb = row.verb
            times = (show_ms(each) for each in (row.median_ms, row.p90_ms, row.first_ms))
            ratio = "1" if row.suite == GO else show_ratio(row.ratio)
            table.add_row(verb, row.label, ratio, *times, style="dim" if row.suite == GO else "")
        yield table


def show_processes(processes: dict[str, dict[str, int] | str]) -> Table:
    """Return the table of processes started."""
    table = _table("processes started besides the plugins", "who", ">ADD", ">CHECK", ">DEL")
    for label, counts in processes.items():
        table.add_row(label, *([counts] if isinstance(counts, str) else map(str, counts.values())))
    return table


def show_memory(memory: list[dict[str, Any]]) -> Table:
    """Return the table of the server's memory."""
    table = _table("memory, KiB of PSS", "who", ">server", ">workers", ">together")
    for each in memory:
        workers = " ".join(map(str, each["workers_kib"]))
        table.add_row(each["side"], str(each["server_kib"]), workers, str(each["together_kib"]))
    return table


def show_verdicts(verdicts: list[Verdict]) -> Table:
    """Return the table of targets."""
    table = _table("targets", "what", "backend", ">wanted", ">seen", "")
    for each in verdicts:
        table.add_row(*each, style=_STYLES.get(each.state, "dim"))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold cyan")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    return table

"""`make bench`: our plugins against Debian's Go plugins, in private namespaces that end with it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import extras, machine, ours, table
from bench.calls import CallError
from bench.interrupts import INTERRUPTS
from bench.report import Report
from bench.run import prove_all, run_scene, steps_of
from bench.scenes import CHAIN, SIZES, plan_scenes
from bench.sides import ACK, INTERFACE, NFTABLES, SINGLE, WARM, Suites, version_of
from cni.errors import CniError
from cni.testing import GO, why_no_namespaces
from plugin_table import ROOT

if TYPE_CHECKING:
    from bench.scenes import Size

EXPECTED = (
    AssertionError, CallError, CniError, OSError, RuntimeError, ValueError, extras.ProofError,
    subprocess.SubprocessError,
)  # fmt: skip
_REFRESH_S = 0.2


def main() -> int:
    """Run the benchmark. Print one line and return 1 if it cannot run."""
    asked = _parse()
    console = Console(highlight=False, emoji=False)
    INTERRUPTS.listen()
    try:
        if why_no_namespaces():
            raise RuntimeError(f"{why_no_namespaces()}; try it as root")
        with TemporaryDirectory(prefix="pycni-bench-") as folder:
            report = _run(asked, Path(folder), console)
        for path in report.write(asked.into):
            console.print(f"written: {path}")
    except KeyboardInterrupt:
        console.print("[bold red]interrupted")
        return 1
    except EXPECTED as error:
        console.print(f"[bold red]failed:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", help="measure only scenes whose title has this text; no memory, processes")
    parser.add_argument("--go", type=Path, default=GO, help="the bin directory that all are compared with")
    parser.add_argument("--other", type=Path, help="one more bin directory to compare")
    parser.add_argument("--ours", type=Path, help="our bin directory as installed, instead of one made here")
    parser.add_argument("--into", type=Path, help="the folder for page, picture and figures")
    asked = parser.parse_args()
    is_whole = asked.size == "full" and asked.only is None
    asked.into = asked.into or (ROOT / "docs" if is_whole else ROOT / "dist/bench")
    return asked


def _run(asked: argparse.Namespace, folder: Path, console: Console) -> Report:
    if not (asked.go / INTERFACE).exists():
        raise RuntimeError(
            f"there is no {asked.go}/{INTERFACE}: install Debian's package containernetworking-plugins"
        )
    bindir, about = ours.find(asked.ours, folder)
    suites = Suites(asked.go, bindir, asked.other)
    names = {"ours": about, "go": f"the Go plugins, {version_of(asked.go)}"}
    if asked.other:
        names["other"] = f"the plugins in BENCH_BINDIR, {version_of(asked.other)}"
    for name, text in names.items():
        console.print(f"[bold cyan]{name}[/]: {escape(text)}")
    report = _measure(suites, SIZES[asked.size], names, console, asked.only)
    _show(report, console)
    return report


def _measure(
    suites: Suites, size: Size, names: dict[str, str], console: Console, only: str | None = None
) -> Report:
    scenes = plan_scenes(suites, size)
    if only is not None:
        chosen = [each for each in scenes if only in each.title]
        with _Steps(console, sum(map(steps_of, chosen))) as steps:
            rows = [row for scene in chosen for row in run_scene(scene, steps)]
        return Report(size.name, names, machine.describe(), rows, {}, [])
    chain = next(each for each in scenes if each.work == CHAIN)
    usual = [side for side in chain.sides if side.answer != ACK]
    reused, single = suites.our(WARM, NFTABLES), suites.our(SINGLE, NFTABLES)
    memory, processes = list[dict[str, Any]](), {}
    with _Steps(console, sum(map(steps_of, scenes)) + 2 * len(usual) + 2) as steps:
        prove_all(usual, steps)
        for side in (reused, single):
            steps(f"memory: {side.label}")
            memory += extras.measure_memory(side)
        for side in usual:
            steps(f"processes: {side.label}")
            processes[side.label] = extras.count_processes(side)
        rows = [row for scene in scenes for row in run_scene(scene, steps)]
    return Report(size.name, names, machine.describe(), rows, processes, memory)


class _Steps:
    """Draw a progress bar between measurements only. None of its threads runs during a measurement."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.description}"), console=console, auto_refresh=False)
        self._task = self._bar.add_task("", total=total)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, description: str) -> None:
        self._bar.update(self._task, description=description, advance=1)
        if time.monotonic() - self._drawn > _REFRESH_S:
            self._bar.refresh()
            self._drawn = time.monotonic()


def _show(report: Report, console: Console) -> None:
    for each in table.show_rows(report.rows):
        console.print(each)
    console.print(table.show_processes(report.processes))
    console.print(table.show_memory(report.memory))
    console.print(table.show_verdicts(report.verdicts))


if __name__ == "__main__":
    sys.exit(main())

"""A pytest plugin that measures what each test costs, and lists the slowest tests at the end of a run.

PYCNI_COSTS names a file to which each run appends one line of JSON for each test: its ID, then the seconds of
CPU time and of wall time of set-up, call and tear-down. Children count when the test process has waited for
them; warm servers, which belong to nobody, do not.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from cni.testing import agent
from cni.testing.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

FILE_VARIABLE = "PYCNI_COSTS"
_PROPERTY = "cost"
_LISTED = 20


class Cost(NamedTuple):
    """Seconds of CPU time and of wall time."""

    cpu: float
    wall: float


def measured(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run one phase of a test, and record its cost as a property of the test, which reaches its report."""
    cpu, wall = _cpu_s(), time.monotonic()
    try:
        return (yield)
    finally:
        # A list, as it must pass from a worker of xdist to the process that reports.
        cost = [round(_cpu_s() - cpu, 3), round(time.monotonic() - wall, 3)]
        item.user_properties.append((_PROPERTY, cost))


def _cpu_s() -> float:
    return agent.cpu_s() + agent.Agent.cpu_s + Zygote.cpu_s


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Measure the fixtures' set-up."""
    return (yield from measured(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Measure the test."""
    return (yield from measured(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Measure the fixtures' tear-down."""
    return (yield from measured(item))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the costs of a test to the file that the user has named."""
    path = os.environ.get(FILE_VARIABLE)
    # The workers of xdist pass their reports to the process that writes.
    if path and report.when == "teardown" and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(path).open("a") as file:
            file.write(json.dumps([report.nodeid, *_phases(report)]) + "\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the slowest tests."""
    costs = dict(_costs(terminalreporter))
    totals = {test: _sum(phases) for test, phases in costs.items()}
    if not totals:
        return
    everything = _sum(totals.values())
    terminalreporter.section(f"slowest {_LISTED} tests")
    terminalreporter.write_line(
        f"{everything.wall:7.1f} s {everything.cpu:7.1f} s of CPU  all {len(totals)} tests"
    )
    for test, cost in sorted(totals.items(), key=lambda each: -each[1].wall)[:_LISTED]:
        terminalreporter.write_line(f"{cost.wall:7.1f} s {cost.cpu:7.1f} s of CPU  {test}")


def _sum(costs: Collection[Cost]) -> Cost:
    return Cost(cpu=sum(each.cpu for each in costs), wall=sum(each.wall for each in costs))


def _phases(report: pytest.TestReport) -> list[Cost]:
    values = [value for name, value in report.user_properties if name == _PROPERTY]
    return [Cost(*value) for value in cast("list[list[float]]", values)]


def _costs(terminalreporter: Any) -> Iterator[tuple[str, list[Cost]]]:
    """Yield each test with the costs of its phases; the report of its last phase has those of all."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                yield report.nodeid, _phases(report)

"""The targets of names are judged against two servers, one of which is no plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import names
from bench.rows import make_rows
from bench.scenes import NAMES, Scene
from bench.sides import AARDVARK, GO, WARM, Side
from bench.targets import MISSED, REACHED, judge

SIDES = tuple(Side(suite, Path("/x")) for suite in (GO, WARM, AARDVARK))


@pytest.mark.parametrize(
    ("ours_us", "states"), [(9.9, [REACHED, REACHED, REACHED]), (12.1, [MISSED, MISSED, MISSED])], ids=str
)
def test_queries_are_judged_against_both_servers(ours_us: float, states: list[str]) -> None:
    of_servers = {GO: 10e-6, WARM: ours_us * 1e-6, AARDVARK: 100e-6}
    unknown = {GO: 10e-6, WARM: ours_us * 1e-6, AARDVARK: 12e-6}
    times = [{names.AGAIN: [of_servers[each.suite]], names.UNKNOWN: [unknown[each.suite]]} for each in SIDES]
    for each in times[:2]:
        each["ADD"] = [0.002]
    scene = Scene(NAMES, SIDES, rounds=1, warm_up=0, there=1_000)
    rows = make_rows(scene, [dict.fromkeys(each, 1.0) for each in times], times)
    # aardvark-dns has no ADD.
    assert [row.suite for row in rows if row.verb == "ADD"] == [GO, WARM]
    of_queries = [each for each in judge(rows, []) if "1,000 names" in each.title and "CPU" in each.title]
    assert [each.state for each in of_queries] == states
    assert [AARDVARK in each.title for each in of_queries] == [False, True, True]

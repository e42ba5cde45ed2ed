"""What the benchmark makes of its measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import picture
from bench.forks import Family, Fork
from bench.rows import make_rows, percentile
from bench.scenes import FULL, QUICK, TINY, Size, plan_scenes
from bench.sides import ACK, GO, WARM, Suites
from bench.targets import MISSED, REACHED, UNKNOWN, judge, show_ratio

SUITES = Suites(Path("/go"), Path("/ours"), Path("/other"))
SCENE = plan_scenes(SUITES, TINY)[1]


def rows_of_one_scene() -> list[float]:
    return [0.1 if side.suite == GO else 0.01 for side in SCENE.sides]


def test_a_ratio_says_how_many_times_as_fast_as_go() -> None:
    times = [{"ADD": [seconds, seconds, seconds * 9]} for seconds in rows_of_one_scene()]
    rows = make_rows(SCENE, [{"ADD": 1.0}] * len(times), times)
    [go] = [row for row in rows if row.suite == GO]
    assert (go.ratio, go.median_ms, go.p90_ms, go.first_ms) == (1, 100, 900, 1000)
    assert {row.ratio for row in rows if row.suite == WARM} == {10}


def test_sides_that_wait_differ_in_del_only() -> None:
    times = [{"ADD": [seconds], "DEL": [seconds]} for seconds in rows_of_one_scene()]
    rows = make_rows(SCENE, [{"ADD": 1.0, "DEL": 1.0}] * len(times), times)
    assert {row.verb for row in rows if "ack" in row.label} == {"DEL"}
    assert [row.answer for row in rows if "ack" in row.label] == [ACK] * 4


@pytest.mark.parametrize("size", [FULL, QUICK, TINY], ids=lambda size: size.name)
def test_each_scene_has_go_once_and_no_side_twice(size: Size) -> None:
    for scene in plan_scenes(SUITES, size):
        labels = [side.label for side in scene.sides]
        assert labels.count("go") == 1
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.9, 9), (0.91, 10), (1, 10), (0, 1)], ids=str)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], share) == expected


def test_a_target_is_judged_by_its_row() -> None:
    times = [{"ADD": [seconds], "CHECK": [seconds], "DEL": [seconds]} for seconds in rows_of_one_scene()]
    rows = make_rows(SCENE, [dict.fromkeys(times[0], 1.0)] * len(times), times)
    rows = [replace(row, ratio=9.9) if row.backend == "nftables" else row for row in rows]
    states = {(each.what, each.backend): each.state for each in judge(rows, [])}
    assert states["ADD", "nftables"] == MISSED
    assert states["ADD", "iptables"] == REACHED
    assert states["VERSION", ""] == UNKNOWN
    assert states["memory of the server and its idle workers", ""] == UNKNOWN


def test_memory_is_judged_in_millions_of_bytes() -> None:
    [*_, fits] = judge([], [{"together_kib": 43_945}])
    [*_, large] = judge([], [{"together_kib": 43_946}])
    assert (fits.state, large.state, fits.seen) == (REACHED, MISSED, "45.0 MB")


def test_processes_are_counted_that_plugins_and_servers_start() -> None:
    me, spawner, plugin, child, grandchild, server, worker = range(1, 8)
    family = Family(me, {server})
    forks = [
        Fork(me, spawner),
        Fork(spawner, plugin),
        Fork(plugin, child),
        Fork(child, grandchild),
        Fork(server, worker),
        Fork(99, 100),
    ]
    assert family.count(forks) == 3
    assert family.count([Fork(worker, 50)]) == 1
    assert family.count([]) == 0


@pytest.mark.parametrize(("ratio", "shown"), [(0.254, "0.25x"), (7.62, "7.6x"), (57.4, "57x"), (1, "1.0x")])
def test_a_ratio_is_shown_with_the_digits_that_count(ratio: float, shown: str) -> None:
    assert show_ratio(ratio) == shown


def test_the_picture_is_well_formed_with_nothing_to_show() -> None:
    root = ET.fromstring(picture.draw([], "a < b & c"))  # noqa: S314 - our own
    assert "a < b & c" in "".join(root.itertext())


def test_the_picture_has_bars_on_both_sides_of_go() -> None:
    times = [{"ADD": [seconds], "CHECK": [seconds * 5], "DEL": [seconds]} for seconds in rows_of_one_scene()]
    rows = make_rows(SCENE, [dict.fromkeys(times[0], 1.0)] * len(times), times)
    rows = [replace(row, ratio=0.3) if row.verb == "CHECK" else row for row in rows]
    said = "".join(ET.fromstring(picture.draw(rows, "")).itertext())  # noqa: S314 - our own
    assert "0.30x" in said
    assert "10x" in said

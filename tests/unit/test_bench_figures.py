"""The figures that the benchmark derives from its measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from bench import networks, picture, plot
from bench.containers import Container, Filling, fill, measured
from bench.curves import CURVES, find_series, list_numbers
from bench.forks import Family, Fork
from bench.rows import Row, make_rows, percentile
from bench.run import steps_of
from bench.scenes import CHAIN, FLAT, FULL, LISTED, QUICK, TINY, Size, plan_scenes
from bench.sides import ACK, GO, WARM, Suites
from bench.targets import MISSED, REACHED, UNKNOWN, judge, show_ratio

if TYPE_CHECKING:
    from bench.curves import Curve

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
        is_without_go = scene.work == FLAT or (scene.work == CHAIN and scene.there in size.alone)
        assert labels.count("go") == (0 if is_without_go else 1)
        assert len(set(labels)) == len(labels)


def test_without_go_there_is_no_ratio_and_nothing_to_judge() -> None:
    [*_, alone] = plan_scenes(SUITES, TINY)
    rows = make_rows(alone, [{"ADD": 1.0}] * 2, [{"ADD": [0.1]}, {"ADD": [0.2]}])
    assert [(row.ratio, row.median_ms) for row in rows] == [(None, 100), (None, 200)]
    states = {each.state for each in judge([replace(row, there=1000) for row in rows], [])}
    assert states == {UNKNOWN}


def test_attachments_of_the_filling_share_namespaces_and_bridges() -> None:
    shared = Filling(per_namespace=10, per_network=1000)
    assert fill(9, Filling()) == Container(9, "f9", "eth0", 0)
    assert fill(2_345, shared) == Container(2_345, "f234", "eth5", 2)
    assert measured(10_000).netns not in {fill(number, shared).netns for number in range(10_000)}
    confs = [list(fill(number, Filling(per_network=5)).confs(SCENE.sides[0])) for number in (4, 5)]
    assert [[conf["name"] for conf in each] for each in confs] == [["bench", "bench"], ["bench1", "bench1"]]


def test_progress_is_told_while_attachments_are_made() -> None:
    [*_, alone] = plan_scenes(SUITES, TINY)
    assert steps_of(alone._replace(there=100)) - steps_of(alone._replace(there=0)) == 3 * len(alone.sides)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.9, 9), (0.91, 10), (1, 10), (0, 1)], ids=str)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], share) == expected


def test_a_target_is_judged_by_its_row() -> None:
    times = [{"ADD": [seconds], "CHECK": [seconds], "DEL": [seconds]} for seconds in rows_of_one_scene()]
    rows = make_rows(SCENE, [dict.fromkeys(times[0], 1.0)] * len(times), times)
    rows = [replace(row, ratio=9.9) if row.backend == "nftables" else row for row in rows]
    states = {(each.title, each.backend): each.state for each in judge(rows, [])}
    assert states["ADD", "nftables"] == MISSED
    assert states["ADD", "iptables"] == REACHED
    assert states["VERSION", ""] == UNKNOWN
    assert states["memory of the server and its idle workers, at rest", ""] == UNKNOWN


def test_memory_is_judged_in_millions_of_bytes() -> None:
    [*_, fits] = judge([], [{"together_kib": 55 * 1024}])
    [*_, large] = judge([], [{"together_kib": 55 * 1024 + 1000}])
    assert (fits.state, large.state, fits.seen) == (REACHED, MISSED, "57.7 MB")


def test_few_and_many_on_one_bridge_are_judged_by_their_medians() -> None:
    scene = next(each for each in plan_scenes(SUITES, FULL) if each.work == FLAT)
    assert [side.beside for side in scene.sides] == [0, 1_000]
    for seconds, state, seen in ((0.015, REACHED, "1.50x"), (0.0151, MISSED, "1.51x")):
        rows = make_rows(scene, [{"ADD": 1.0}] * 2, [{"ADD": [0.01]}, {"ADD": [seconds]}])
        assert [(row.there, row.ratio) for row in rows] == [(0, None), (1_000, None)]
        [*_, verdict, _] = judge(rows, [])
        assert (verdict.title, verdict.state, verdict.seen) == (
            "ADD beside 1,000 attachments, by ADD beside none",
            state,
            seen,
        )


def test_each_listed_network_has_a_scene_and_its_targets() -> None:
    scenes = [each for each in plan_scenes(SUITES, FULL) if each.work == LISTED]
    assert [scene.network for scene in scenes] == networks.read()
    for scene in scenes:
        times = [
            {verb: [0.1 if side.suite == GO else 0.01] for verb in ("ADD", "DEL")} for side in scene.sides
        ]
        rows = make_rows(scene, [dict.fromkeys(("ADD", "DEL"), 1.0)] * len(times), times)
        judged = {(each.title, each.backend): each for each in judge(rows, []) if each.state != UNKNOWN}
        assert scene.network is not None
        wanted = {
            (f"{scene.network.title}, {verb}", backend): f"at least {least:g}x"
            for verb, by_backend in scene.network.least.items()
            for backend, least in by_backend.items()
        }
        assert {key: each.wanted for key, each in judged.items()} == wanted
        assert {each.seen for each in judged.values()} == {"10x"}


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


def chain_rows(there: int) -> list[Row]:
    """Return rows: ours are slower the more are there, and those that wait for the kernel far slower."""
    scene = next(each for each in plan_scenes(SUITES, TINY) if each.work == CHAIN)._replace(there=there)
    ours = 0.01 + 0.001 * there
    seconds = [0.1 if side.suite == GO else 9 * ours if side.answer == ACK else ours for side in scene.sides]
    times = [{"ADD": [each], "DEL": [each * 2]} for each in seconds]
    return make_rows(scene, [dict.fromkeys(times[0], 1.0)] * len(times), times)


def test_a_curve_has_the_usual_calls_of_each_side_and_no_others() -> None:
    [curve, leases] = CURVES
    foreign = [replace(row, rules=5, median_ms=1) for row in chain_rows(0)]
    rows = [*foreign, *chain_rows(0), *chain_rows(10)]
    assert {row.median_ms for row in rows if row.answer == ACK} == {1, 180, 360}
    found = {each.line.label: each for each in find_series(rows, curve, "DEL")}
    assert {label: each.medians for label, each in found.items()} == {
        "Go plugins, iptables": {0: 200, 10: 200},
        "ours, iptables": {0: 20, 10: 40},
        "ours, nftables": {0: 20, 10: 40},
    }
    assert found["ours, nftables"].growth == 2
    assert list_numbers(rows, curve) == [0, 10]
    assert find_series(rows, leases, "ADD") == []


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.file)
def test_a_plot_is_well_formed_with_nothing_to_show(curve: Curve) -> None:
    root = ET.fromstring(plot.draw([], curve, "a < b & c"))  # noqa: S314 - our own
    assert "a < b & c" in "".join(root.itertext())


def test_a_plot_has_all_numbers_from_left_to_right_and_slower_ones_above() -> None:
    rows = [*chain_rows(0), *chain_rows(300), *chain_rows(3000)]
    root = ET.fromstring(plot.draw(rows, CURVES[0], ""))  # noqa: S314 - our own
    said = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [said.count(number) for number in ("0", "300", "3,000")] == [2, 2, 2]
    lines = [
        (each.get("class"), [tuple(map(float, point.split(","))) for point in each.get("points", "").split()])
        for each in root.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    # Those of the legend have two points.
    drawn = [(kind, points) for kind, points in lines if len(points) == 3]
    assert [kind for kind, _ in drawn] == ["theirs", "iptables", "nftables"] * 2
    for kind, ((x0, y0), (x1, y1), (x2, y2)) in drawn:
        # A tenth, then ten times as many: the steps are equal.
        assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
        assert (y0 == y1 == y2) if kind == "theirs" else (y0 > y1 > y2)


def test_figures_at_the_ends_of_lines_are_not_drawn_over_each_other() -> None:
    root = ET.fromstring(plot.draw([*chain_rows(0), *chain_rows(10)], CURVES[0], ""))  # noqa: S314 - our own
    texts = [each for each in root.iter("{http://www.w3.org/2000/svg}text") if each.get("class") == "value"]
    places = [(each.get("x"), float(each.get("y", 0))) for each in texts]
    assert len(places) == 8
    assert all(abs(y - other) >= 13 for x, y in places for at, other in places if at == x and other != y)
    assert len(set(places)) == len(places)

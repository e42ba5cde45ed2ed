"""`make bench` at its smallest: everything is measured once or twice and told; no figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.scenes import TINY, plan_scenes
from bench.sides import ACK, Suites
from cni.testing import GO, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from plugin_table import declared, packages

VERBS = {"chain": ["ADD", "CHECK", "DEL"], "ipam": ["ADD", "DEL"], "version": ["VERSION"]}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--size", "tiny", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def expected_rows(ours: Path) -> list[tuple[str, str, str]]:
    return sorted(
        (scene.title, verb, side.label)
        for scene in plan_scenes(Suites(GO, ours), TINY)
        for side in scene.sides
        for verb in VERBS[scene.work]
        if side.answer != ACK or verb == "DEL"
    )


def processes_of(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if str(folder) in line]


@pytest.mark.interop
@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "they can be made")
@pytest.mark.skipif(not (GO / "bridge").exists(), reason="the package containernetworking-plugins is missing")
def test_a_run_tells_everything_and_leaves_nothing(tmp_path: Path, launcher: Path) -> None:
    ours = make_warm_bindir(tmp_path, packages(declared()), launcher)
    into = tmp_path / "out"
    done = bench("--ours", str(ours), "--into", str(into))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    told: dict[str, Any] = json.loads((into / "benchmarks.json").read_text())
    rows = told["rows"]
    assert sorted((row["scene"], row["verb"], row["label"]) for row in rows) == expected_rows(ours)
    assert all(row["times_ms"] and row["median_ms"] > 0 and row["ratio"] > 0 for row in rows)
    assert {each["what"] for each in told["targets"]} >= {"ADD", "VERSION"}
    assert all(each["together_kib"] for each in told["memory"])
    assert len(told["processes"]) == 7
    page = (into / "benchmarks.md").read_text()
    assert all(f"| {row['verb']} | {row['label']} |" in page for row in rows)
    assert ET.parse(into / "benchmarks.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own
    assert processes_of(tmp_path) == []


def test_a_run_that_cannot_be_made_says_why_in_a_line(tmp_path: Path) -> None:
    done = bench("--go", str(tmp_path), "--into", str(tmp_path))
    assert done.returncode == 1
    assert "failed: " in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []

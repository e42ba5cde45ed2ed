"""`make bench` at its smallest: everything is measured once or twice and told; no figure is judged."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from bench import crowd
from bench.chain import Chain
from bench.containers import Filling
from bench.curves import CURVES, list_numbers
from bench.rows import Row
from bench.scenes import TINY, plan_scenes
from bench.sides import AARDVARK, ACK, IPTABLES, WARM, Suites
from bench.stage import Stage
from cni.testing import GO, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.testing.server_zygote import ServerZygote
from plugin_table import declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable

QUERIES = ["new query", "query", "unknown name"]
CHAIN_VERBS = ["ADD", "CHECK", "DEL"]
VERBS = {
    "chain": CHAIN_VERBS,
    "listed": CHAIN_VERBS,
    "flat": CHAIN_VERBS,
    "ipam": ["ADD", "DEL"],
    "version": ["VERSION"],
    "names": ["ADD", *QUERIES, "DEL"],
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--size", "tiny", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)


def expected_rows(ours: Path) -> list[tuple[str, str, str]]:
    return sorted(
        (scene.title, verb, side.label)
        for scene in plan_scenes(Suites(GO, ours), TINY)
        for side in scene.sides
        for verb in (QUERIES if side.suite == AARDVARK else VERBS[scene.work])
        if side.answer != ACK or verb == "DEL"
    )


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that name a folder, when processes that were killed have had time to end."""
    deadline = time.monotonic() + 120
    while (found := _list_processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _list_processes_of(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if str(folder) in line]


@pytest.mark.full
@pytest.mark.long
@pytest.mark.interop
@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "they can be made")
@scene.needs_go
def test_a_run_tells_everything_and_leaves_nothing(tmp_path: Path, launcher: Path) -> None:
    ours = make_warm_bindir(tmp_path, packages(declared()), launcher)
    into = tmp_path / "out"
    with ServerZygote(ours):
        done = bench("--ours", str(ours), "--into", str(into))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    told: dict[str, Any] = json.loads((into / "benchmarks.json").read_text())
    rows = told["rows"]
    assert sorted((row["scene"], row["verb"], row["label"]) for row in rows) == expected_rows(ours)
    assert all(row["times_ms"] and row["median_ms"] > 0 for row in rows)
    # Ours alone are measured where Go would take too long.
    assert {row["there"] for row in rows if row["ratio"] is None} == {*TINY.alone, 0, TINY.beside}
    assert all(row["ratio"] > 0 for row in rows if row["ratio"] is not None)
    assert {each["title"] for each in told["targets"]} >= {"ADD", "VERSION"}
    assert all(each["together_kib"] for each in told["memory"])
    assert len(told["processes"]) == 7
    page = (into / "benchmarks.md").read_text()
    assert all(f"| {row['verb']} | {row['label']} |" in page for row in rows)
    for picture in ("benchmarks.svg", *(curve.file for curve in CURVES)):
        assert picture in page
        assert ET.parse(into / picture).getroot().tag.endswith("svg")  # noqa: S314 - our own
    assert list_numbers([Row(**row) for row in rows], CURVES[0]) == [0, *TINY.there, *TINY.alone]
    assert processes_of(tmp_path) == []


# The scene that takes longest, and what `make bench` does about signals.
FILLING = """
import sys
from pathlib import Path
from bench.interrupts import INTERRUPTS
from bench.run import run_scene
from bench.scenes import CHAIN, Scene
from bench.sides import NFTABLES, WARM, Suites
INTERRUPTS.listen()
side = Suites(Path(), Path(sys.argv[1])).our(WARM, NFTABLES)
try:
    run_scene(Scene(CHAIN, (side,), 1, 0, there=2000), lambda what: print(what, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "they can be made")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
# A terminal sends the signal to all processes, `kill` to one.
@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["all", "one"])
def test_a_run_is_interrupted_while_it_makes_attachments(
    tmp_path: Path, launcher: Path, number: int, send: Callable[[int, int], None]
) -> None:
    ours = make_warm_bindir(tmp_path, packages(declared()), launcher)
    command = [sys.executable, "-c", FILLING, str(ours)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(4)]
        send(process.pid, number)
        said, _ = process.communicate(timeout=300)
    assert told[-1] == "chain, 2,000 attachments there: warm nftables, 80 of 2,000 attachments\n"
    assert said.splitlines()[-1] == "interrupted"
    assert process.returncode == 0
    assert processes_of(tmp_path) == []


def test_a_run_that_cannot_be_made_says_why_in_a_line(tmp_path: Path) -> None:
    done = bench("--go", str(tmp_path), "--into", str(tmp_path))
    assert done.returncode == 1
    assert "failed: " in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def rules_there(ours: Path, filling: Filling) -> list[str]:
    """Return the rules beside which our plugins are measured with iptables; addresses may vary."""
    with Stage(Suites(GO, ours).our(WARM, IPTABLES)) as stage:
        Chain(stage, first=5).round()
        crowd.attach(stage, 5, filling, lambda _: None)
        saved = stage.host.run(["iptables-save", "-t", "nat"]).splitlines()
    return sorted(re.sub(r"(10\.\d+\.0)\.\d+(/32|:80)", r"\1.x\2", line) for line in saved if line[0] in ":-")


@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "they can be made")
def test_rules_that_are_written_apart_are_those_of_the_plugins(tmp_path: Path, launcher: Path) -> None:
    ours = make_warm_bindir(tmp_path, packages(declared()), launcher)
    one_by_one, apart = (rules_there(ours, Filling(2, 3, rules_apart=each)) for each in (False, True))
    assert sum("--to-destination" in line for line in apart) == 5
    assert apart == one_by_one

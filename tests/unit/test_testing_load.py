"""A load beside tests ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patience, wait_until

ROOT = Path(__file__).parents[2]
# Tells the process that it is started by, and that it runs.
CHILD = "import os, time; print(os.getppid(), flush=True); time.sleep({seconds})"


def start(*options: str, seconds: float = 60, status: int = 0) -> subprocess.Popen[str]:
    code = CHILD.format(seconds=seconds) + f"; raise SystemExit({status})"
    command = [sys.executable, "-m", "tests.support.load", *options, "--", sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def busy(parent: int) -> list[str]:
    """Return the processes that are the load of one process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_text().split("\0")
        except OSError:
            continue
        if arguments[1:3] == ["-IS", "-c"] and arguments[4:5] == [str(parent)]:
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name
)
def test_the_load_ends_with_its_parent(number: int) -> None:
    with start("--runs", "1", "--load", "2", seconds=20) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        assert len(busy(process.pid)) == 2
        process.send_signal(number)
        assert process.wait(30) != 0
    wait_until(lambda: not busy(process.pid))


def test_each_run_is_reported_and_one_failure_fails() -> None:
    with start("--runs", "2", "--load", "1", seconds=0) as process:
        printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed.count("passed")) == (0, 2)
    with start("--runs", "2", "--load", "1", seconds=0, status=3) as process:
        printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed.count("failed with status 3")) == (1, 2)
    wait_until(lambda: not busy(process.pid))


def test_a_run_that_takes_too_long_is_ended() -> None:
    with start("--runs", "1", "--load", "1", "--limit", "0.5") as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "took longer than 0.5 s" in printed


@pytest.mark.parametrize(
    ("shown", "limit_s"),
    [("0.20 0.10 0.05 1/90 7", 3), ("1.00 9.00 9.00 4/90 7", 6), ("8.00 1.00 1.00 1/9 7", 12)],
)
def test_a_time_limit_grows_with_the_processes_for_each_core(
    monkeypatch: pytest.MonkeyPatch, shown: str, limit_s: float
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: {"/proc/loadavg": shown}[str(path)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert patience(3) == limit_s

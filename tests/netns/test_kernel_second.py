"""A second kernel that cannot be built in time, or that hangs, is told and costs no more than its limit.

Shell scripts take the place of the build and of the second kernel.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import chdir
from typing import TYPE_CHECKING

import pytest

from tests.kernel import run
from tests.kernel.guest import HERE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts guests")

# What user-mode Linux does with its parameters, and a function for the report of a test.
KERNEL = """#!/bin/bash
for each; do
    case $each in
        ssl0=*) output=${each##*:} ;;
        ssl1=*) report=${each##*:} ;;
        job=*) job=${each#*=} ;;
    esac
done
end() { printf '{"test": "%s", "outcome": "%s", "reason": "", "lacks": false}\\n' "$1" "$2" >&$report; }
"""


def build(monkeypatch: pytest.MonkeyPatch, folder: Path, mode: str, script: str) -> run.Build:
    (folder / "build.sh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "build.sh").chmod(0o755)
    (folder / "readonly.sh").symlink_to(HERE / "readonly.sh")
    monkeypatch.setattr(run, "HERE", folder)
    monkeypatch.setattr(run, "_CACHED_S", 0.2)
    monkeypatch.setattr(run, "_BUILD_LIMIT_S", 1 if "sleep 1000" in script else 60)
    return run.Build(mode)


@pytest.mark.parametrize(
    ("second", "script", "reason"),
    [
        ("auto", "sleep 1000 & sleep 1000", "its build takes too long"),
        ("auto", "trap '' TERM; sleep 1000; sleep 1000", "its build takes too long"),
        ("auto", "echo no disk >&2; exit 1", "the reason is above"),
        ("cached", '[ "$1" = --cached ] && exit 1; exit 0', "it is not built"),
        ("no", "touch built", "the user does not want it"),
    ],
)
def test_a_build_that_fails_or_hangs_is_no_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str, script: str, reason: str
) -> None:
    made = build(monkeypatch, tmp_path, second, script)
    with pytest.raises(run.NoKernelError, match=reason):
        made.wait()
    made.end()
    assert not (tmp_path / "built").exists()


def test_a_build_in_time_is_awaited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = build(monkeypatch, tmp_path, "required", "sleep 1.5; echo /the/kernel")
    assert str(made.wait()) == "/the/kernel"


def test_where_no_guest_can_be_started_nothing_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "readonly.sh").write_text("echo first >&2; echo unshare failed >&2; exit 1\n")
    monkeypatch.setattr(run, "HERE", tmp_path)
    with pytest.raises(run.NoKernelError, match=r"^no guest can be started: unshare failed$"):
        run.Build("auto").wait()


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "status", "not_run"),
    [
        ("end a::1 passed; end a::2 passed; echo 0 >&$report", 0, []),
        ("end a::1 passed; end a::2 failed; echo 1 >&$report", 1, []),
        ("end a::1 passed", 0, ["a::2"]),
        ("end a::1 failed", 1, ["a::2"]),
        ("end a::1 passed; sleep 1000", 0, ["a::2"]),
        ("exit 3", 0, ["a::1", "a::2"]),
    ],
)
def test_a_guest_that_hangs_or_dies_fails_nothing_that_has_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, status: int, not_run: list[str]
) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_text(KERNEL + script + "\n")
    kernel.chmod(0o755)
    monkeypatch.setattr(run, "_SILENCE_LIMIT_S", 20)
    with run.Guests(kernel, ["a::1", "a::2"]) as guests:
        has_failed, skipped, errors = guests.wait()
    assert has_failed == status
    assert [line.test for line in skipped] == not_run
    assert len(errors) == bool(not_run)
    assert all("THE SECOND KERNEL FAILED" in each for each in errors)


def test_guests_run_beside_the_tests_here_and_are_heard_after_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "listed"
    lines = [run.Line("a::1", "collected", "", lacks=True), run.Line("a::2", "collected", "", lacks=False)]
    listed.write_text("".join(f"{json.dumps(line._asdict())}\n" for line in lines))
    kernel = tmp_path / "kernel"
    kernel.write_text(KERNEL + "echo there >&$output; end a::1 passed; echo 0 >&$report\n")
    kernel.chmod(0o755)
    made = build(monkeypatch, tmp_path, "auto", f"echo {kernel}")
    monkeypatch.setattr(run, "_CACHED_S", 60)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    # The tests here: they end when a guest has a job.
    wait = "for _ in $(seq 1000); do ls dist/kernel-*/1/job && break; sleep 0.01; done; sleep 0.5; echo here"
    options = argparse.Namespace(kernels="both", listed=listed, all=False, second="auto")
    with chdir(tmp_path):
        assert run.run(options, ["sh", "-c", wait], made) == 0
    made.end()
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in printed if line in {"here", "[1] there"}] == ["here", "[1] there"]
    assert printed[0].startswith("dist/kernel-")
    assert "==> 0 tests ran on no kernel" in printed

"""Run tests on this kernel and on a second one: `python -m tests.kernel.run both|second -- PYTEST...`.

`both` runs pytest here, and on the second kernel the tests that this kernel lacks features for: at the same
time if the kernel is there and --listed has the tests, otherwise afterwards. `second` runs only those, or
with --all each test that pytest selects. At the end it lists what ran on no kernel. Exits with 1 if a test
fails on either. A second kernel that cannot be had, or that hangs, is an error with --second required only.
docs/testing.md has the reasons.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, NoReturn

import pytest

from plugin_table import ROOT
from tests.kernel.guest import HERE, Guest, GuestError
from tests.support.launcher import compile_launcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

# Each has its part of the tests. With three on two processors, two would share one.
_GUESTS = 2
# The seconds that a test takes in a guest on the average: of any file, of those that start other programs,
# and of those that take much longer.
_USUAL_S, _INTEROP_S = 1.5, 3
_SLOW_S = {
    "tests/interop/test_podman_networks.py": 14,
    "tests/interop/test_second_interfaces.py": 7,
    "tests/netns/test_faults_kill.py": 8,
    "tests/netns/test_faults_stop.py": 6,
    "tests/netns/test_cold_imports.py": 3,
    "tests/netns/test_every_plugin.py": 3,
    "tests/netns/test_pycni_gc.py": 4,
}
# So long the tests of a file stay in one guest.
_TOGETHER_S = 36
# Time limits of tests grow by it in a guest.
_SLOWNESS = "4"
# A kernel that is there is found within this time.
_CACHED_S = 10
# So long the tests that have ended wait for a build, unless the second kernel is required. On two idle cores
# it takes five minutes.
_BUILD_LIMIT_S = 1200
# A guest hangs if no test ends for so long, even beside other load.
_SILENCE_LIMIT_S = 900
# So long all tests on the second kernel may take: some minutes, and half a minute for each test of a guest.
_START_LIMIT_S, _TEST_LIMIT_S = 300, 30
_PASSED_ON = ("PATH", "HOME", "LANG", "PYTEST_ADDOPTS")


class Line(NamedTuple):
    """A line of --kernel-report: a test, what became of it, and why it was skipped."""

    test: str
    outcome: str
    reason: str
    lacks: bool


class NoKernelError(Exception):
    """There is no second kernel; the message says why."""


class Build:
    """The second kernel, which is built in the background where it is not there yet.

    `mode` is "auto", "cached", "required" or "no"; "cached" builds none. The build takes what the tests leave
    of the processors.
    """

    def __init__(self, mode: str) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._mode = mode
        self._limit_s = None if mode == "required" else _BUILD_LIMIT_S
        self._why_not = "the user does not want it" if mode == "no" else why_no_guests()
        if not self._why_not:
            only = ["--cached"] if mode == "cached" else []
            command = [str(HERE / "build.sh"), *only]
            # Not a session of its own: the scheduler compares niceness within one.
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)

    def has_ended(self) -> bool:
        """Return whether `wait` returns at once: a kernel that is there is found within some seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(_CACHED_S) >= 0
        return False

    def wait(self) -> Path:
        """Return the program. Raise NoKernelError if it cannot be built, or takes too long."""
        if self._process is None:
            raise NoKernelError(self._why_not)
        try:
            output, _ = self._process.communicate(timeout=_CACHED_S)
        except subprocess.TimeoutExpired:
            limit = f", {self._limit_s // 60} minutes at most" if self._limit_s else ""
            say(f"waiting for the build of the second kernel{limit}")
            output = self._wait_longer()
        if self._process.returncode:
            is_absent = self._mode == "cached"
            reason = "it is not built; `make test-kernel` builds it" if is_absent else "the reason is above"
            raise NoKernelError(reason)
        return Path(output.strip())

    def _wait_longer(self) -> str:
        assert self._process
        try:
            return self._process.communicate(timeout=self._limit_s)[0]
        except subprocess.TimeoutExpired:
            self.end()
            reason = "its build takes too long; `make test-kernel` waits for it without a limit"
            raise NoKernelError(reason) from None

    def end(self) -> None:
        """End the build."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.communicate(timeout=_CACHED_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()


def why_no_guests() -> str:
    """Return why no guest can be started here, "" if one can: before ten minutes are spent on a kernel."""
    if os.geteuid() != 0:
        return "only root may start it"
    command = ["sh", str(HERE / "readonly.sh"), "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = (tried.stderr.strip().splitlines() or ["no reason was given"])[-1]
    return f"no guest can be started: {reason}" if tried.returncode else ""


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


def run_here(command: Sequence[str]) -> tuple[int, list[Line]]:
    """Run pytest on this kernel. Return its exit status and the tests that it has skipped."""
    with tempfile.NamedTemporaryFile("r") as file:
        # Without "=" pytest takes the file for a test, and its folder for the root.
        status = subprocess.run([*command, f"--kernel-report={file.name}"], check=False).returncode
        return status, read(file)


def collect(command: Sequence[str]) -> tuple[int, list[Line]]:
    """Return pytest's exit status, and the tests that it would run."""
    with tempfile.NamedTemporaryFile("r") as file:
        options = ["--collect-only", f"--kernel-report={file.name}"]
        done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.stdout.write(done.stdout)
        return done.returncode, read(file)


def read(file: IO[str]) -> list[Line]:
    """Read a file of --kernel-report."""
    return [Line(**json.loads(line)) for line in file]


def lacking(listed: Path) -> list[str]:
    """Return the tests that this kernel lacks features for, [] if they could not be listed."""
    if not listed.exists():
        return []
    with listed.open() as file:
        return [line.test for line in read(file) if line.lacks]


class Guests:
    """Tests on the second kernel, from the start of the guests to the end of the context.

    What they print is held back until `wait`.
    """

    def __init__(self, kernel: Path, tests: Sequence[str]) -> None:
        self._kernel, self._tests = kernel, tests
        self._parts = split(tests, _GUESTS)
        self._guests: list[Guest] = []
        self._held: list[str] | None = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start the guests."""
        (ROOT / "dist").mkdir(exist_ok=True)
        with ExitStack() as stack:
            # Not in /tmp, which the guest covers.
            made = tempfile.TemporaryDirectory(prefix="kernel-", dir=ROOT / "dist")
            folder = Path(stack.enter_context(made))
            stack.callback(self._end)
            # A compiler takes ten times as long in a guest.
            launcher = compile_launcher(folder)
            for number, part in enumerate(self._parts, 1):
                job = write_job(folder / str(number), part, launcher)
                self._guests.append(Guest(self._kernel, job, ROOT, partial(self._show, number), number))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the guests."""
        self._stack.close()

    def _end(self) -> None:
        for guest in self._guests:
            guest.end()

    def _show(self, guest: int, line: str) -> None:
        text = f"[{guest}] {line}\n"
        with self._lock:
            if self._held is not None:
                self._held.append(text)
            else:
                sys.stdout.write(text)
                sys.stdout.flush()

    def wait(self) -> tuple[int, list[Line], list[str]]:
        """Wait for all tests. The time limits begin now.

        Return 0 if none fails, what was skipped or not run, and what was wrong with guests.
        """
        start, cpu_s = time.monotonic(), children_s()
        say(f"{len(self._tests)} tests on the second kernel, in {len(self._parts)} guests")
        with self._lock:
            sys.stdout.write("".join(self._held or []))
            self._held = None
        limit_s = _START_LIMIT_S + _TEST_LIMIT_S * max(map(len, self._parts))
        statuses, errors = [], []
        for guest in self._guests:
            try:
                left_s = limit_s - (time.monotonic() - start)
                statuses.append(guest.wait(max(left_s, 1), _SILENCE_LIMIT_S))
            except GuestError as error:
                errors.append(f"THE SECOND KERNEL FAILED: {error}")
        # Guests are children that nothing has waited for before, so this is all of their CPU time.
        say(f"second kernel: waited {time.monotonic() - start:.0f} s, {children_s() - cpu_s:.0f} s of CPU")
        lines = [Line(**each) for guest in self._guests for each in guest.reports]
        ended = {line.test for line in lines}
        not_run = [
            Line(test, "skipped", "the second kernel hung or ended early", lacks=True)
            for test in self._tests
            if errors and test not in ended
        ]
        has_failed = any(statuses) or any(line.outcome == "failed" for line in lines)
        return int(has_failed), [line for line in lines if line.outcome == "skipped"] + not_run, errors


def children_s() -> float:
    """Return the CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def split(tests: Sequence[str], parts: int) -> list[list[str]]:
    """Split tests into parts that take about as long.

    Tests of a file share fixtures. They stay together up to `_TOGETHER_S`.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        files[_file_of(test)].append(test)
    chunks: list[list[str]] = []
    for file, each in files.items():
        size = max(int(_TOGETHER_S / _seconds_of(file)), 1)
        chunks += [each[start : start + size] for start in range(0, len(each), size)]
    split: list[list[str]] = [[] for _ in range(parts)]
    busy_s = [0.0] * parts
    for chunk in sorted(chunks, key=_seconds_of_chunk, reverse=True):
        part = busy_s.index(min(busy_s))
        split[part] += chunk
        busy_s[part] += _seconds_of_chunk(chunk)
    return [part for part in split if part]


def _seconds_of_chunk(chunk: Sequence[str]) -> float:
    return len(chunk) * _seconds_of(_file_of(chunk[0]))


def _seconds_of(file: str) -> float:
    return _SLOW_S.get(file, _INTEROP_S if "interop" in file else _USUAL_S)


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def write_job(folder: Path, tests: Sequence[str], launcher: Path) -> Path:
    """Write the script that runs tests in a guest."""
    folder.mkdir()
    listed = folder / "tests"
    listed.write_text("".join(f"{test}\n" for test in tests))
    variables = {name: value for name, value in os.environ.items() if name in _PASSED_ON or "PYCNI_" in name}
    variables |= {"PYCNI_LAUNCHER": str(launcher), "PYCNI_SLOWNESS": _SLOWNESS}
    color = f"--color={'yes' if sys.stdout.isatty() else 'no'}"
    options = ["-v", color, "-p", "no:xdist", "-p", "no:cacheprovider", "--no-kernel-skips", "--thorough"]
    report = ["--kernel-report=/dev/ttyS1"]
    command = [sys.executable, "-m", "pytest", *options, *report, f"@{listed}"]
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    job = folder / "job"
    job.write_text(f"{exports}exec {shlex.join(command)}\n")
    return job


def list_skipped(skipped: Sequence[Line]) -> None:
    """List tests that ran on no kernel, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for line in skipped:
        by_reason[line.reason].append(line.test)
    say(f"{len(skipped)} tests ran on no kernel" + (":" if skipped else ""))
    for reason, tests in sorted(by_reason.items()):
        sys.stdout.write(f"{reason}:\n" + "".join(f"    {test}\n" for test in tests))


def stop(number: int, _frame: object) -> NoReturn:
    """End with all guests and files on SIGTERM."""
    raise SystemExit(128 + number)


def run(options: argparse.Namespace, command: Sequence[str], build: Build) -> int:
    """Run or collect tests here, and run tests on the second kernel. Return the exit status."""
    errors: list[str] = []
    with ExitStack() as stack:
        wanted = lacking(options.listed) if options.listed else []
        guests = None
        if wanted and build.has_ended():
            # Without a kernel `build.wait` says so again below.
            with suppress(NoKernelError):
                guests = stack.enter_context(Guests(build.wait(), wanted))
        status, lines = (run_here if options.kernels == "both" else collect)(command)
        if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return status
        if not guests:
            wanted = [
                line.test for line in lines if line.lacks or (options.all and line.outcome == "collected")
            ]
        lacked = [line for line in lines if line.test in set(wanted)]
        skipped = [line for line in lines if line.outcome == "skipped" and line not in lacked]
        if wanted:
            try:
                guests = guests or stack.enter_context(Guests(build.wait(), wanted))
                there, skipped_there, errors = guests.wait()
                status, skipped = status or there, skipped + skipped_there
            except NoKernelError as error:
                errors = [f"THERE IS NO SECOND KERNEL: {error}"]
                skipped += lacked
    for each in errors:
        say(each)
    list_skipped(skipped)
    return status or int(bool(errors) and options.second == "required")


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.run", description=__doc__)
    parser.add_argument("kernels", choices=["both", "second"])
    parser.add_argument("--all", action="store_true", help="tests that this kernel could run, too")
    parser.add_argument(
        "--second", choices=["auto", "cached", "required", "no"], default="auto", help="the second kernel"
    )
    text = "a --kernel-report of `pytest --collect-only` for the same tests"
    parser.add_argument("--listed", type=Path, metavar="FILE", help=text)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[options.command[:1] == ["--"] :]
    signal.signal(signal.SIGTERM, stop)
    build = Build(options.second)
    try:
        return run(options, command, build)
    except KeyboardInterrupt:
        return 130
    finally:
        build.end()


if __name__ == "__main__":
    sys.exit(main())

"""Run a command several times beside a load: `python -m tests.support.load --runs 5 --load 8 -- COMMAND...`.

The load is LOAD processes that do nothing but keep a core busy. They end with this process, however it ends.
Exits with 1 if one of the runs fails or takes longer than the limit.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RUN_LIMIT_S = 90 * 60
_END_S = 120
# Ends as soon as the process that started it has ended, even by SIGKILL.
_BUSY = """
import os
parent = int(os.sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep as many cores busy as there are processes, until the context ends."""
    command = [sys.executable, "-IS", "-c", _BUSY, str(os.getpid())]
    busy = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def run(command: Sequence[str], limit_s: float = _RUN_LIMIT_S) -> str:
    """Run a command and return what is wrong: "" if it succeeds within the limit."""
    with subprocess.Popen(command) as process:
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"took longer than {limit_s:g} s"
        except BaseException:
            _end(process)
            raise
    return f"failed with status {status}" if status else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a run of pytest, which then ends its workers; kill it if it does not end."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.load", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of the command")
    parser.add_argument("--load", type=int, default=8, metavar="N", help="busy processes")
    parser.add_argument("--limit", type=float, default=_RUN_LIMIT_S, metavar="S", help="seconds for each run")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[options.command[:1] == ["--"] :]
    signal.signal(signal.SIGTERM, _stop)
    results = []
    with load(options.load):
        for number in range(1, options.runs + 1):
            start = time.monotonic()
            results.append(run(command, options.limit))
            seconds = time.monotonic() - start
            outcome = results[-1] or "passed"
            sys.stdout.write(f"==> run {number} of {options.runs} beside a load of {options.load}: ")
            sys.stdout.write(f"{outcome}, {seconds:.0f} s\n")
            sys.stdout.flush()
    return int(any(results))


if __name__ == "__main__":
    sys.exit(main())

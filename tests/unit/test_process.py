"""A child process is fed, heard, timed and ended."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cni.errors import CniError, Code
from cni.kernel import child
from cni.warm.control import children

SH = "/bin/sh"
LARGE = 1 << 20


def test_a_program_gets_its_input_and_its_output_is_returned() -> None:
    done = child.run([SH, "-c", "cat; echo said >&2; exit 3"], b"x" * LARGE)
    assert done == (3, b"x" * LARGE, "said")


def test_a_program_that_does_not_read_is_no_error() -> None:
    assert child.run(["/bin/true"], b"x" * LARGE) == (0, b"", "")


def test_it_has_the_environment_it_is_given() -> None:
    assert child.run([SH, "-c", 'echo "$A"'], env={"A": "b"}).stdout == b"b\n"


def test_a_program_that_takes_too_long_is_killed() -> None:
    others, started = children(os.getpid()), time.monotonic()
    with pytest.raises(CniError, match="did not end within") as refusal:
        child.run(["/bin/sleep", "30"], timeout_s=0.1)
    assert refusal.value.code == Code.TRY_AGAIN
    assert time.monotonic() - started < 25
    assert children(os.getpid()) == others


def test_a_program_that_does_not_exist_is_reported() -> None:
    with pytest.raises(CniError, match="could not run /no/such"):
        child.run(["/no/such"])


def test_a_signal_is_a_negative_status() -> None:
    assert child.run([SH, "-c", "kill -TERM $$"]).status == -signal.SIGTERM


def test_a_process_that_holds_the_output_open_is_not_waited_for() -> None:
    started = time.monotonic()
    assert child.run([SH, "-c", "sleep 20 & echo here"]).stdout == b"here\n"
    assert time.monotonic() - started < 18


def test_an_exception_ends_the_child() -> None:
    def stop(_number: int, _frame: object) -> None:
        raise CniError(Code.TRY_AGAIN, "stopped")

    others, before = children(os.getpid()), signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(CniError, match="stopped"):
            child.run(["/bin/sleep", "30"])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert children(os.getpid()) == others


def test_no_descriptor_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their number
    for _ in range(5):
        child.run(["/bin/true"])
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


# Says that it is there, and takes its time to end.
UNDOING = "trap 'sleep 0.2; echo undone >{told}; exit 1' TERM; echo up >{told}; while :; do sleep 0.02; done"


def run_too_long(script: str, told: Path, grace_s: float = 2) -> None:
    """Run a script that does not end in time, with a longer limit if it has told nothing until then."""
    for timeout_s in (0.3, 3, 30):
        with pytest.raises(CniError, match="did not end within"):
            child.run([SH, "-c", script], timeout_s=timeout_s, grace_s=grace_s)
        if told.exists():
            return


def test_a_program_that_takes_too_long_may_undo_its_work(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run_too_long(UNDOING.format(told=told), told)
    assert told.read_text() == "undone\n"


def test_a_process_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    run_too_long(f"trap '' TERM; echo $$ >{told}; exec sleep 60", told, grace_s=0.2)
    assert not Path(f"/proc/{told.read_text().strip()}").exists()


def test_a_stopped_process_gets_the_signal_to_end(tmp_path: Path) -> None:
    told = tmp_path / "told"
    run_too_long(f"trap 'echo undone >{told}; exit 1' TERM; kill -STOP $$; sleep 60", told)
    assert told.read_text() == "undone\n"


# A pipe's end that nobody had yet is closed as its object goes.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
# The handler may run as an object goes, where Python only tells of what it raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_at_any_moment_of_the_start_leaves_no_child() -> None:
    """Whenever the handler runs, the child is not there yet or is ended."""

    def stop(_number: int, _frame: object) -> None:
        raise CniError(Code.TRY_AGAIN, "stopped")

    others = children(os.getpid())
    before = signal.signal(signal.SIGALRM, stop)
    stopped = 0
    try:
        for number in range(150):
            with suppress(CniError):
                signal.setitimer(signal.ITIMER_REAL, 0.000_02 * (number + 1))
                child.run(["/bin/sleep", "0.02"])
                signal.setitimer(signal.ITIMER_REAL, 0)
                continue
            stopped += 1
            assert children(os.getpid()) == others
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped > 100

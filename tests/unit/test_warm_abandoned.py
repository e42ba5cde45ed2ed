"""Which calls of killed launchers a call waits for, and for how long."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cni.warm import abandoned
from cni.warm.scoreboard import Running, Scoreboard, Slot
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SCOREBOARD_SLOTS = 4
C1 = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
OTHER_LINK = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth1"}
OTHER_CONTAINER = {"CNI_CONTAINERID": "c2", "CNI_IFNAME": "eth0"}
NONE: dict[str, str] = {}
_END_S = 0.2


@pytest.fixture
def zombie() -> Iterator[int]:
    """Yield the process ID of a launcher that has ended, and that its runtime has not waited for."""
    with subprocess.Popen(["/bin/true"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read() == b""
        wait_until(lambda: abandoned.has_ended(process.pid))
        yield process.pid


@pytest.fixture
def living() -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def is_awaited(own: dict[str, str], other: dict[str, str], launcher: int) -> bool:
    """Return whether a call waits for another one, which ends after a while."""
    scoreboard = Scoreboard(SCOREBOARD_SLOTS)
    waiting, late = Slot(scoreboard, 0, -1), Slot(scoreboard, 2, -1)
    late.begin_call(abandoned.describe(other, launcher))
    timer = threading.Timer(_END_S, late.end_call)
    timer.start()
    abandoned.wait(waiting, abandoned.describe(own, 1))
    has_waited = not waiting.others()
    timer.cancel()
    timer.join()
    return has_waited


@pytest.mark.parametrize("other", [C1, NONE])
@pytest.mark.parametrize("own", [C1, NONE])
def test_the_same_attachment_and_none_are_awaited(
    own: dict[str, str], other: dict[str, str], zombie: int
) -> None:
    assert is_awaited(own, other, zombie)


@pytest.mark.parametrize("other", [OTHER_LINK, OTHER_CONTAINER])
def test_another_attachment_is_not_awaited(other: dict[str, str], zombie: int) -> None:
    assert not is_awaited(C1, other, zombie)


def test_a_call_whose_launcher_lives_is_not_awaited(living: int) -> None:
    """As that of a plugin of another suite, which calls one of this suite for the same attachment."""
    assert not is_awaited(C1, C1, living)


def test_the_wait_has_a_limit(monkeypatch: pytest.MonkeyPatch, zombie: int) -> None:
    logged: list[str] = []
    monkeypatch.setattr(abandoned, "_LIMIT_S", 0.1)
    monkeypatch.setattr(abandoned, "log", logged.append)
    scoreboard = Scoreboard(SCOREBOARD_SLOTS)
    Slot(scoreboard, 1, -1).begin_call(Running(7, zombie))
    start = time.monotonic()
    abandoned.wait(Slot(scoreboard, 0, -1), Running(7, 1))
    assert time.monotonic() - start >= 0.1
    assert logged == ["going on beside a worker whose launcher was killed: it does not end"]

"""The scoreboard on which workers record their state."""

from __future__ import annotations

import os

from cni.warm.scoreboard import Running, Scoreboard, Slot


def test_a_worker_with_a_background_task_takes_no_call_and_counts_as_busy() -> None:
    scoreboard = Scoreboard(3)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    first, second = (Slot(scoreboard, scoreboard.vacant_slot() + number, writer) for number in range(2))
    for slot in (first, second):
        slot.set_idle()
    assert (scoreboard.idle, scoreboard.busy, scoreboard.background) == (2, 0, 0)
    first.set_busy()
    second.set_busy()
    # No worker is idle for a further call.
    assert os.read(reader, 9) == b"!"
    second.set_background()
    second.count_call()
    assert (scoreboard.idle, scoreboard.busy, scoreboard.background, scoreboard.calls) == (0, 2, 1, 1)
    second.set_idle()
    assert (scoreboard.idle, scoreboard.busy, scoreboard.background) == (1, 1, 0)
    for fd in (reader, writer):
        os.close(fd)


def test_a_call_is_seen_by_the_others_until_it_or_its_worker_ends() -> None:
    scoreboard = Scoreboard(3)
    first, second = Slot(scoreboard, 0, -1), Slot(scoreboard, 1, -1)
    first.begin_call(Running(-5, 123))
    assert (first.others(), second.others()) == ([], [Running(-5, 123)])
    second.begin_call(Running(1 << 62, 4))
    assert first.others() == [Running(1 << 62, 4)]
    first.end_call()
    scoreboard.set_vacant(1)
    assert (first.others(), second.others()) == ([], [])
    assert scoreboard.calls == 0

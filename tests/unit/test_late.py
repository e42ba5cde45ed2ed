"""Work that goes on after the answer ends before the process does anything else."""

from __future__ import annotations

import threading

from cni.kernel import background
from cni.warm.settings import Settings


def test_work_runs_in_a_thread_that_can_be_waited_for() -> None:
    go_on, has_run = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(10)
        has_run.set()

    others = background.count_threads() - 1
    background.start(work)
    assert not background.wait(0.05)
    go_on.set()
    assert has_run.wait(10)
    assert others or background.wait(10)


def test_a_warm_del_goes_on_early_unless_it_is_set_otherwise() -> None:
    assert Settings().answer_del == "gone"
    assert Settings.model_validate({"answerDel": "ack"}).answer_del == "ack"

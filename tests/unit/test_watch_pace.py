"""How soon a round of repairs follows another one."""

from __future__ import annotations

from cni.runtime.pace import Pace


def test_a_reload_is_not_slowed_down_and_a_fight_is() -> None:
    pace = Pace()
    pauses = [pace.after(has_repaired=True, took_s=0.1) for _ in range(14)]
    assert pauses == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_rounds_without_a_finding_take_a_share_of_the_time() -> None:
    pace = Pace()
    for _ in range(3):
        assert pace.after(has_repaired=False, took_s=2) == 0
    assert pace.not_before_s == 0
    # This is no fight, and nothing to report.
    assert pace.after(has_repaired=False, took_s=2) == 0
    assert pace.not_before_s > 0


def test_a_repair_ends_a_row_of_vain_rounds() -> None:
    pace = Pace()
    for _ in range(4):
        pace.after(has_repaired=False, took_s=2)
    waiting_until_s = pace.not_before_s
    assert pace.after(has_repaired=True, took_s=0.1) == 0
    assert pace.not_before_s < waiting_until_s

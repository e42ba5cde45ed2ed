"""Decide how soon after a round of repairs the next one may begin."""

from __future__ import annotations

import time

# A firewall's reload deletes rules several times. More rounds than these in a row are a fight.
_FREE_ROUNDS = 5
_LONGEST_PAUSE_S = 60.0
# Rounds that follow each other after a longer time are not in a row.
_ROW_S = 10.0
# Rounds in which nothing was missing: the first ones are free, others take a fifth of a core at most.
_FREE_CHECKS = 3
_SHARE, _LONGEST_CHECK_PAUSE_S = 4.0, 10.0


class Pace:
    """Pauses between rounds. Rounds begin at once, unless other programs undo what the rounds do."""

    def __init__(self) -> None:
        self.not_before_s = 0.0
        self._repairs = self._checks = 0
        self._ended_s = float("-inf")

    def after(self, *, has_repaired: bool, took_s: float) -> float:
        """Return the pause after a round, 0 unless it is due to a fight. It is counted from now."""
        now_s = time.monotonic()
        if now_s - took_s - max(self._ended_s, self.not_before_s) > _ROW_S:
            self._repairs = self._checks = 0
        self._ended_s = now_s
        if not has_repaired:
            self._checks += 1
            if self._checks > _FREE_CHECKS:
                self.not_before_s = now_s + min(_SHARE * took_s, _LONGEST_CHECK_PAUSE_S)
            return 0.0
        self._repairs += 1
        self._checks = 0
        pause_s = 0.0
        if self._repairs > _FREE_ROUNDS:
            pause_s = min(2.0 ** (self._repairs - _FREE_ROUNDS - 1), _LONGEST_PAUSE_S)
        self.not_before_s = now_s + pause_s
        return pause_s

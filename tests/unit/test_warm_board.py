"""The board on which workers tell what they do."""

from __future__ import annotations

import os

from cni.warm.scoreboard import Board, Post


def test_a_worker_that_waits_for_the_kernel_takes_no_call_and_is_not_at_work() -> None:
    board = Board(3)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    first, second = (Post(board, board.vacant() + number, writer) for number in range(2))
    for post in (first, second):
        post.is_idle()
    assert (board.idle, board.busy, board.late) == (2, 0, 0)
    first.is_busy()
    second.is_busy()
    # Nobody is left for a further call.
    assert os.read(reader, 9) == b"!"
    second.is_late()
    second.has_served()
    assert (board.idle, board.busy, board.late, board.calls) == (0, 2, 1, 1)
    second.is_idle()
    assert (board.idle, board.busy, board.late) == (1, 1, 0)
    for fd in (reader, writer):
        os.close(fd)

"""An idle server replaces workers that have served calls, so that their memory is freed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cni.warm import control
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

REST_S = 2
# Longer than REST_S in all, each pause much shorter.
CALLS, PAUSE_S = 30, 0.1


def workers(host: WarmHost) -> set[int]:
    [server] = host.servers()
    return set(control.children(server))


@pytest.fixture
def resting(warm_host: WarmHost) -> WarmHost:
    warm_host.settings(workers=3, restSeconds=REST_S)
    return warm_host


def await_replacement(host: WarmHost, pid: int) -> None:
    wait_until(lambda: pid not in workers(host) and len(workers(host)) == 3)


def test_an_idle_server_replaces_only_workers_that_have_served(resting: WarmHost) -> None:
    served = int(resting.facts()["pid"])
    others = workers(resting) - {served}
    assert len(others) == 2
    await_replacement(resting, served)
    assert others < workers(resting)
    told = resting.status()
    assert (told["requests"], len(told["workers"])) == (1, 3)
    # Nobody who has served nothing is replaced.
    before = workers(resting)
    time.sleep(REST_S + 1)
    assert workers(resting) == before


def test_no_worker_is_replaced_while_there_are_calls(resting: WarmHost) -> None:
    deadline = time.monotonic() + LONG_S
    while replaced_in_calls(resting):
        assert time.monotonic() < deadline


def replaced_in_calls(host: WarmHost) -> set[int]:
    """Make calls without a rest. Return the workers that were replaced, or all if there was a rest.

    A busy machine makes longer pauses than the test.
    """
    host.odd()
    last, before = time.monotonic(), workers(host)
    for _ in range(CALLS):
        time.sleep(PAUSE_S)
        host.odd()
        replaced = before - workers(host)
        if time.monotonic() - last >= REST_S:
            return before
        assert not replaced
        last = time.monotonic()
    return set()

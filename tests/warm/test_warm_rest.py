"""An idle server replaces workers that have served calls, so that their memory is freed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cni.warm import control

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

WITHIN_S = 10
CALLS = 30


def workers(host: WarmHost) -> set[int]:
    [server] = host.servers()
    return set(control.children(server))


@pytest.fixture
def resting(warm_host: WarmHost) -> WarmHost:
    warm_host.settings(workers=3, restSeconds=1)
    return warm_host


def await_replacement(host: WarmHost, pid: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while pid in workers(host) or len(workers(host)) < 3:
        assert time.monotonic() < deadline, f"{pid} is among {workers(host)}"
        time.sleep(0.05)


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
    time.sleep(2.5)
    assert workers(resting) == before


def test_no_worker_is_replaced_while_there_are_calls(resting: WarmHost) -> None:
    resting.odd()
    before = workers(resting)
    for _ in range(CALLS):
        time.sleep(0.1)
        resting.odd()
        assert workers(resting) == before

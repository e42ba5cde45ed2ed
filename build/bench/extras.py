"""Measure what is not a time: processes started and memory. Prove that a side does its work."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import chain
from bench.chain import Chain
from bench.containers import CONTAINER_PORT, measured
from bench.forks import Family, Forks
from bench.stage import Stage
from cni.service import status

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.sides import Side

_ROUNDS_BEFORE = 8
_SETTLE_S, _TRIES = 0.3, 5
# The time without a call after which workers are replaced here, and the time that this takes.
_REST_S, _RESTED_S = 3, 3


class ProofError(Exception):
    """Raised if a side does not do the same work as the others."""


def prove(stage: Stage, number: int) -> None:
    """Attach a container, reach its published port, detach it. Raises ProofError if anything remains.

    The side must have been used before, as what all containers share stays.
    """
    container = measured(number)
    stage.ensure_namespaces([container.netns])
    before = stage.host.snapshot()
    _, results = stage.call(chain.add, stage.side, [container])
    sandbox = stage.sandbox(container.netns)
    with sandbox.serve(CONTAINER_PORT):
        if not stage.host.reaches("127.0.0.1", container.port):
            raise ProofError(f"{stage.side.label}: nobody answers at the published port")
    stage.call(chain.delete, stage.side, results)
    left = [line for line in before.differences(stage.host.snapshot()) if "/run/pycni/warm/" not in line]
    stage.remove_namespaces([container.netns])
    if left:
        raise ProofError(f"{stage.side.label}: DEL has not put things back: {'; '.join(left[:4])}")


def count_processes(side: Side) -> dict[str, int] | str:
    """Return the processes that each verb of the chain starts besides the plugins, or why it is unknown."""
    with Stage(side) as stage:
        Chain(stage).round()
        try:
            with Forks() as forks:
                return _count(stage, forks)
        except OSError as error:
            return f"cannot be counted here: {error}"


def _count(stage: Stage, forks: Forks) -> dict[str, int]:
    side, container = stage.side, measured(1000)
    stage.ensure_namespaces([container.netns])
    family = Family(os.getpid(), stage.processes())

    def during(step: Callable[[], Any]) -> tuple[Any, int]:
        forks.count(family.count)
        return step(), forks.count(family.count)

    (_, results), added = during(lambda: stage.call(chain.add, side, [container]))
    _, checked = during(lambda: stage.call(chain.check, side, results))
    _, deleted = during(lambda: stage.call(chain.delete, side, results))
    return {"ADD": added, "CHECK": checked, "DEL": deleted}


def measure_memory(side: Side) -> list[dict[str, Any]]:
    """Return the PSS in KiB of a warm server that has served some calls, the only one of this run.

    First when an idle server has replaced workers that have served calls, then right after the
    calls. All figures are 0 when no server could be started.
    """
    at_rest = replace(side, settings={**side.settings, "restSeconds": _REST_S})
    with Stage(at_rest) as stage:
        _show_bus(stage)
        calm = _after_calls(stage, _REST_S + _RESTED_S)
    with Stage(side) as stage:
        _show_bus(stage)
        return [
            _figures(f"{side.label}, at rest", calm),
            _figures(f"{side.label}, right after calls", _after_calls(stage, 0)),
        ]


def _show_bus(stage: Stage) -> None:
    """Let the server load the library for D-Bus, as on a host with a system bus. No plugin here uses it."""
    stage.host.run(["mkdir", "-p", "/run/dbus"])
    stage.host.run(["touch", "/run/dbus/system_bus_socket"])


def _after_calls(stage: Stage, seconds: float) -> list[int]:
    case = Chain(stage)
    for _ in range(_ROUNDS_BEFORE):
        case.round()
    time.sleep(seconds)
    for _ in range(_TRIES):
        # Workers that have just been replaced are about to end.
        time.sleep(_SETTLE_S)
        found = [status.pss_kib(pid) for pid in stage.processes()]
        if found and all(found):
            return found
    return []


def _figures(label: str, sizes: list[int]) -> dict[str, Any]:
    server, *workers = sizes or [0]
    return {
        "side": label,
        "server_kib": server,
        "workers_kib": workers,
        "together_kib": server + sum(workers),
    }

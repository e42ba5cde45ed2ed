"""What is found out beside times: processes started, memory, and that the work is really done."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from bench import chain
from bench.chain import Chain, name_of, port_of
from bench.forks import Family, Forks
from bench.stage import Stage
from cni.warm import control

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.sides import Side

_ROUNDS_BEFORE = 8
_SETTLE_S, _TRIES = 0.3, 5


class ProofError(Exception):
    """A side does not do what the others do."""


def prove(stage: Stage, number: int) -> None:
    """Attach a container, reach its published port, detach it: nothing of it may be left. Raises ProofError.

    The side must have been used before, as what all containers share stays.
    """
    name = name_of(number)
    stage.ensure_namespaces([name])
    before = stage.host.snapshot()
    _, results = stage.host.call(chain.add, stage.side, [name])
    sandbox = stage.sandbox(name)
    with sandbox.serve(chain.CONTAINER_PORT):
        if not stage.host.reaches("127.0.0.1", port_of(name)):
            raise ProofError(f"{stage.side.label}: nobody answers at the published port")
    stage.host.call(chain.delete, stage.side, results)
    left = [line for line in before.differences(stage.host.snapshot()) if "/run/pycni/warm/" not in line]
    stage.remove_namespaces([name])
    if left:
        raise ProofError(f"{stage.side.label}: DEL has not put things back: {'; '.join(left[:4])}")


def count_processes(side: Side) -> dict[str, int] | str:
    """Give the processes that each verb of the chain starts besides the plugins; or why it cannot be told."""
    with Stage(side) as stage:
        Chain(stage, 1, 0).round()
        try:
            with Forks() as forks:
                return _count(stage, forks)
        except OSError as error:
            return f"cannot be counted here: {error}"


def _count(stage: Stage, forks: Forks) -> dict[str, int]:
    host, side, name = stage.host, stage.side, name_of(1000)
    stage.ensure_namespaces([name])
    family = Family(os.getpid(), stage.processes())

    def during(step: Callable[[], Any]) -> tuple[Any, int]:
        family.count(forks.heard())
        return step(), family.count(forks.heard())

    (_, results), added = during(lambda: host.call(chain.add, side, [name]))
    _, checked = during(lambda: host.call(chain.check, side, results))
    _, deleted = during(lambda: host.call(chain.delete, side, results))
    return {"ADD": added, "CHECK": checked, "DEL": deleted}


def measure_memory(side: Side) -> dict[str, Any]:
    """Give the PSS in KiB of a warm server that has served some calls, the only one of this run.

    All figures are 0 when no server could be started.
    """
    with Stage(side) as stage:
        case = Chain(stage, 1, 0)
        for _ in range(_ROUNDS_BEFORE):
            case.round()
        found: list[int] = []
        for _ in range(_TRIES):
            # Workers that have just been replaced are about to end.
            time.sleep(_SETTLE_S)
            found = [control.pss_kib(pid) for pid in stage.processes()]
            if found and all(found):
                break
    server, *workers = found or [0]
    return {
        "side": side.label,
        "server_kib": server,
        "workers_kib": workers,
        "together_kib": server + sum(workers),
    }

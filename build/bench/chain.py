"""Call chains of plugins; rounds of the usual one: bridge with host-local and masquerading, then portmap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bench.calls import run_all
from bench.containers import measured
from bench.sides import GO, OTHER
from bench.stage import make_call

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.calls import Work
    from bench.sides import Side
    from bench.stage import Stage


class Attachable(Protocol):
    """A container, as plugins are called for it."""

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a plugin for this container."""
        ...

    def confs(self, side: Side) -> Iterator[dict[str, Any]]:
        """Yield the configurations of its chain."""
        ...


C = TypeVar("C", bound=Attachable)
Results = dict[C, dict[str, Any]]


def add(
    side: Side, containers: Sequence[C], before: Mapping[str, Any] | None = None
) -> tuple[float, Results[C]]:
    """Attach containers at once. Return the seconds, and the chain's result for each.

    `before` is the result of plugins that were called for each of them earlier.
    """
    results: Results[C] = {}
    return run_all(_add(side, each, results, before or {}) for each in containers), results


def check(side: Side, results: Results[C]) -> float:
    """Check attachments at once. Return the seconds."""
    return run_all(_pass(side, "CHECK", each, result) for each, result in results.items())


def delete(side: Side, results: Results[C]) -> float:
    """Detach containers at once. Return the seconds."""
    return run_all(_pass(side, "DEL", each, result) for each, result in results.items())


def _add(side: Side, container: C, results: Results[C], before: Mapping[str, Any]) -> Work:
    result = dict(before)
    for conf in container.confs(side):
        given = conf | ({"prevResult": result} if result else {})
        result = json.loads((yield make_call(side, conf["type"], "ADD", given, container.env)))
    results[container] = result


def _pass(side: Side, verb: str, container: Attachable, result: dict[str, Any]) -> Work:
    """Call all plugins with the chain's result. DEL calls them in reverse, as the specification requires."""
    confs = list(container.confs(side))
    for conf in reversed(confs) if verb == "DEL" else confs:
        call = make_call(side, conf["type"], verb, conf | {"prevResult": result}, container.env)
        # Debian's portmap looks for rules of IPv6 that containers without such an address do not have.
        yield call._replace(may_fail=verb == "CHECK" and side.suite in {GO, OTHER})


class Chain:
    """Rounds for `at_once` containers, the first of them with the number `first`."""

    def __init__(self, stage: Stage, at_once: int = 1, first: int = 0) -> None:
        self._stage = stage
        self._next = first
        self._at_once = at_once

    def round(self) -> dict[str, float]:
        """Attach, check and detach containers in fresh namespaces. Return the seconds of each verb."""
        containers = [measured(self._next + index) for index in range(self._at_once)]
        names = [each.netns for each in containers]
        # Each round has another port, so that connections of the round before do not affect it.
        self._next += self._at_once
        stage, side = self._stage, self._stage.side
        stage.ensure_namespaces(names)
        added, results = stage.call(add, side, containers)
        checked = stage.call(check, side, results)
        deleted = stage.call(delete, side, results)
        stage.remove_namespaces(names)
        return {"ADD": added, "CHECK": checked, "DEL": deleted}

"""The chain of a container with a published port: bridge with host-local and masquerading, then portmap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.calls import run_all
from bench.sides import GO, OTHER
from bench.stage import make_call

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.calls import Work
    from bench.sides import Side
    from bench.stage import Stage

Results = dict[str, dict[str, Any]]

NETWORK = {"cniVersion": "1.0.0", "name": "bench"}
_BRIDGE = {
    "type": "bridge",
    "bridge": "bench0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.22.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    },
}
FIRST_PORT, CONTAINER_PORT = 20000, 80
_AT_ONCE_WHEN_FILLING = 8


def name_of(number: int) -> str:
    """Give the name of a container and of its namespace."""
    return f"b{number}"


def port_of(name: str) -> int:
    """Give the host port that is published for a container."""
    return FIRST_PORT + int(name[1:])


def add(side: Side, names: Sequence[str]) -> tuple[float, Results]:
    """Attach containers at once; gives the seconds, and the chain's result for each."""
    results: Results = {}
    return run_all(_add(side, name, results) for name in names), results


def check(side: Side, results: Results) -> float:
    """Check attachments at once; gives the seconds."""
    return run_all(_pass(side, "CHECK", name, result) for name, result in results.items())


def delete(side: Side, results: Results) -> float:
    """Detach containers at once; gives the seconds."""
    return run_all(_pass(side, "DEL", name, result) for name, result in results.items())


def fill(side: Side, names: Sequence[str]) -> None:
    """Attach many containers, some at once."""
    for at in range(0, len(names), _AT_ONCE_WHEN_FILLING):
        add(side, names[at : at + _AT_ONCE_WHEN_FILLING])


def _add(side: Side, name: str, results: Results) -> Work:
    result: dict[str, Any] = {}
    for conf in _confs(side, name):
        given = conf | ({"prevResult": result} if result else {})
        result = json.loads((yield make_call(side, conf["type"], "ADD", given, name)))
    results[name] = result


def _pass(side: Side, verb: str, name: str, result: dict[str, Any]) -> Work:
    """Call all plugins with the chain's result: DEL in reverse, as the specification wants."""
    confs = list(_confs(side, name))
    for conf in reversed(confs) if verb == "DEL" else confs:
        call = make_call(side, conf["type"], verb, conf | {"prevResult": result}, name)
        # Debian's portmap looks for rules of IPv6 that containers without such an address do not have.
        yield call._replace(may_fail=verb == "CHECK" and side.suite in {GO, OTHER})


def _confs(side: Side, name: str) -> Iterator[dict[str, Any]]:
    port = {"hostPort": port_of(name), "containerPort": CONTAINER_PORT, "protocol": "tcp"}
    portmap = {"type": "portmap", "runtimeConfig": {"portMappings": [port]}}
    backend = side.backend
    yield NETWORK | _BRIDGE | ({"ipMasqBackend": backend} if backend else {})
    yield NETWORK | portmap | ({"backend": backend} if backend else {})


class Chain:
    """Rounds of ADD, CHECK and DEL for `at_once` containers, with `there` attached before."""

    def __init__(self, stage: Stage, at_once: int, there: int) -> None:
        self._stage = stage
        self._next = there
        self._at_once = 1
        if there or at_once > 1:
            # The Go plugins fail where several make the chains that all containers share at the same time.
            self.round()
        self._at_once = at_once
        if there:
            names = [name_of(number) for number in range(there)]
            stage.ensure_namespaces(names)
            stage.host.call(fill, stage.side, names)

    def round(self) -> dict[str, float]:
        """Attach, check and detach containers in fresh namespaces; gives the seconds of each verb."""
        names = [name_of(self._next + index) for index in range(self._at_once)]
        # A port of its own for each round: no connection of the round before is in the kernel's way.
        self._next += self._at_once
        host, side = self._stage.host, self._stage.side
        self._stage.ensure_namespaces(names)
        added, results = host.call(add, side, names)
        checked = host.call(check, side, results)
        deleted = host.call(delete, side, results)
        self._stage.remove_namespaces(names)
        return {"ADD": added, "CHECK": checked, "DEL": deleted}

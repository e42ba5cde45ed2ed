"""host-local called alone, with a pool that has many leases."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from bench.calls import run_all
from bench.containers import Container
from bench.sides import INTERFACE, IPAM
from bench.stage import make_call

if TYPE_CHECKING:
    from bench.calls import Work
    from bench.sides import Side
    from bench.stage import Stage

_CONF = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": INTERFACE,
    "ipam": {"type": IPAM, "ranges": [[{"subnet": "10.64.0.0/12"}]]},
}
_POOL = Path("/var/lib/cni/networks/bench")
_FIRST = IPv4Address("10.64.0.2")


class Ipam:
    """Rounds of ADD and DEL with `there` leases made before, as files in the Go plugin's format."""

    def __init__(self, stage: Stage, there: int) -> None:
        self._stage = stage
        self._rounds = 0
        stage.call(fill, there)

    def round(self) -> dict[str, float]:
        """Lease an address and release it. Return the seconds of each verb."""
        self._rounds += 1
        stage, who = self._stage, Container(self._rounds, "none")
        return {verb: stage.call(_one, stage.side, verb, who) for verb in ("ADD", "DEL")}


def fill(leases: int) -> None:
    """Write the leases, and the record of the last reserved address."""
    _POOL.mkdir(parents=True)
    for number in range(leases):
        (_POOL / str(_FIRST + number)).write_text(f"c{number}\r\neth0")
    if leases:
        (_POOL / "last_reserved_ip.0").write_text(str(_FIRST + leases - 1))


def _one(side: Side, verb: str, container: Container) -> float:
    return run_all([_work(side, verb, container)])


def _work(side: Side, verb: str, container: Container) -> Work:
    yield make_call(side, IPAM, verb, _CONF, container.env)


class Version:
    """Rounds of VERSION, the least that a plugin can do."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def round(self) -> dict[str, float]:
        """Ask bridge for its versions. Return the seconds."""
        return {"VERSION": self._stage.call(_version, self._stage.side)}


def _version(side: Side) -> float:
    return run_all([_version_work(side)])


def _version_work(side: Side) -> Work:
    yield make_call(side, INTERFACE, "VERSION", {"cniVersion": "1.0.0"})

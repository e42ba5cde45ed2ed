"""One runtime among many: adds, checks and deletes at random, and goes on after each kill."""

from __future__ import annotations

import os
import pickle
import random
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cni.errors import CniError
from tests.churn import world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.runtime.chain import Runtime
    from cni.runtime.derive import RuntimeArgs
    from cni.runtime.network import Network

# In the error of a call whose launcher or worker was killed.
_KILLED = ("signal: SIGKILL", "was killed during the call")


class Left(NamedTuple):
    """An attachment: number of the network, container ID, sandbox."""

    network: int
    container_id: str
    sandbox: str


@dataclass
class Tally:
    """Counts of a worker's calls; `attached` are its remaining attachments."""

    operations: Counter[str] = field(default_factory=Counter)
    cut_short: int = 0
    abandoned: int = 0
    attached: Left | None = None
    unexpected: list[str] = field(default_factory=list)


class Worker:
    """Works in one sandbox. `abandons`: it leaves what was cut short, and takes a new sandbox."""

    def __init__(self, bindir: Path, number: int, *, abandons: bool) -> None:
        self._runtime: Runtime = world.runtime(bindir)
        self._number = number
        self._abandons = abandons
        self._random = random.Random()  # noqa: S311 - any order will do
        self._serial = self._generation = 0
        self.tally = Tally()

    @property
    def _sandbox(self) -> str:
        return f"{self._number}.{self._generation}"

    def work(self, until: float) -> None:
        """Attach and detach containers one after the other until the clock says `until`."""
        while time.monotonic() < until:
            self._serial += 1
            place = self._random.randrange(len(world.NETWORKS))
            name = f"w{self._number}-{self._serial}"
            self._live(place, name, until)

    def _live(self, place: int, name: str, until: float) -> None:
        network, told = world.NETWORKS[place], world.told(name, self._sandbox)
        if self._attempt("ADD", network, told):
            while self._random.random() < 0.4:
                self._attempt("CHECK", network, told)
            if time.monotonic() > until:
                self.tally.attached = Left(place, name, self._sandbox)
                return
        elif self._abandons:
            self._abandon()
            return
        while not self._attempt("DEL", network, told):
            if self._abandons:
                self._abandon()
                return

    def _abandon(self) -> None:
        self.tally.abandoned += 1
        world.drop_sandbox(self._sandbox)
        self._generation += 1
        world.make_sandbox(self._sandbox)

    def _attempt(self, verb: str, network: Network, told: RuntimeArgs) -> bool:
        """Run one operation. Return False if it was cut short; record every other error."""
        self.tally.operations[verb] += 1
        steps: dict[str, Callable[[Network, RuntimeArgs], object]] = {
            "ADD": self._runtime.add, "CHECK": self._runtime.check, "DEL": self._runtime.delete
        }  # fmt: skip
        try:
            steps[verb](network, told)
        except CniError as error:
            if not any(text in str(error) for text in _KILLED):
                self.tally.unexpected.append(f"{verb} {network.name} {told.container_id}: {error}")
                # So that a DEL that always fails ends the test.
                return verb == "DEL"
            self.tally.cut_short += 1
            return False
        return True


def start(bindir: Path, number: int, until: float, report: Path, *, abandons: bool) -> int:
    """Fork a worker that writes its tally into a file. Return its process ID."""
    child = os.fork()
    if child == 0:
        _run(Worker(bindir, number, abandons=abandons), until, report)
    return child


def _run(worker: Worker, until: float, report: Path) -> NoReturn:
    try:
        try:
            worker.work(until)
        except BaseException:  # noqa: BLE001 - the test fails by it
            worker.tally.unexpected.append(traceback.format_exc())
        report.write_bytes(pickle.dumps(worker.tally))
    finally:
        os._exit(0)

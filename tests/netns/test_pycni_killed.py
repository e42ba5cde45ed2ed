"""Commands that change networks and containers are killed, or fail, at each of their steps.

After that the same command, the opposite one, or the end of the container finishes the work, and nothing of
it remains. Other networks and containers are untouched, and every list can be read at any time.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.runtime import conflists
from cni.runtime.observe import UNFINISHED
from cni.testing.faults import FAIL, KILL, TELL, TERM, Fault
from tests.netns.attached_world import World
from tests.netns.fault_world import ALL
from tests.support.patience import patience

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from cni.testing import Host
    from cni.testing.snapshot import Snapshot

pytestmark = pytest.mark.modes("warm")

CALM, BOX, DEAD = "calm", "box", "dead"
_REPORT = "pycni: fault: "
# After them there is nothing new for others to find.
_LEAVE_NOTHING = {"lock.taken", "store.folder-made"}


class Step(NamedTuple):
    """A command, and the words by which it may say that there is nothing to do."""

    command: str
    refusal: str = ""


# The runtime ends the container BOX, and calls GC for what it does not know.
END = Step("")
CREATE = Step("network create new", "network with name new already exists")
REMOVE = Step("network rm new", "network new not found")
PRUNE = Step("network prune --force")
CONNECT = Step("network connect mine box", "is already connected to network mine")
DISCONNECT = Step("network disconnect mine box", "is not connected to network mine")
PUBLISH = Step("publish box 8082:81", "has published 8082/tcp already")
UNPUBLISH = Step("unpublish box 8082", "has not published 8082/tcp")
RUN = Step("run --network web -p 8083:80 --name job true")
COLLECT = Step("gc web --dead-only")


class Case(NamedTuple):
    """A command that is cut short, what comes before it, and ways back to the state before all that."""

    prepare: tuple[str, ...]
    command: str
    ways_back: tuple[tuple[Step, ...], ...]


CASES = {
    "create": Case((), CREATE.command, ((REMOVE,), (CREATE, REMOVE))),
    # The network has the remains of a container.
    "rm": Case((CREATE.command, DEAD), REMOVE.command, ((REMOVE,), (PRUNE,))),
    "prune": Case(
        (CREATE.command, "network create newer"),
        PRUNE.command,
        ((PRUNE,), (REMOVE, Step("network rm -f newer"))),
    ),
    "connect": Case((), CONNECT.command, ((DISCONNECT,), (CONNECT, DISCONNECT), (END,))),
    "disconnect": Case(
        (CONNECT.command,), DISCONNECT.command, ((DISCONNECT,), (CONNECT, DISCONNECT), (END,))
    ),
    "publish": Case((), PUBLISH.command, ((UNPUBLISH,), (PUBLISH, UNPUBLISH), (END,))),
    "unpublish": Case((PUBLISH.command,), UNPUBLISH.command, ((UNPUBLISH,), (END,))),
    "run": Case((), RUN.command, ((RUN,), (COLLECT,))),
}


class KillWorld(World):
    """A host with CALM on "web" and on "mine", and with BOX on "web"; both have a published port."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host, folder, with_faults=True)
        self.ok("network", "create", "mine")
        self.attach(CALM, (8080, "tcp"))
        self.ok("network", "connect", "mine", CALM)
        # All that the first use of a host leaves is there then.
        self.begin()
        for step in (PUBLISH, UNPUBLISH, RUN):
            self.ok(*step.command.split())
        self.end()
        self.without_box = host.snapshot()
        self.begin()

    def begin(self) -> None:
        """Start BOX. Its routes have the metric that its first other network gives them."""
        self.attach(BOX, (8081, "tcp"))
        for step in (CONNECT, DISCONNECT):
            self.ok(*step.command.split())
        self.with_box = self.host.snapshot()

    def end(self) -> None:
        """End BOX as its runtime does, which knows of "web" only."""
        self.ok("del", "web", BOX)
        self.sandboxes.pop(BOX).delete()
        self.ok("gc", "mine", "--dead-only")
        # In a mount namespace that is not the machine's, GC has no proof that a container without a result is
        # gone.
        self.ok("del", "mine", BOX, "-i", "eth1")

    def prepare(self, case: Case) -> None:
        """Make the calls that come before the command of a case."""
        for each in case.prepare:
            if each == DEAD:
                self.attach(DEAD, network="new")
                self.sandboxes.pop(DEAD).delete()
            else:
                self.ok(*each.split())

    def positions(self, case: Case) -> list[Fault]:
        """Return the fault points that a command passes; in a short run the last of most kinds."""
        self.prepare(case)
        done = self.cut(case, Fault(TELL, ""))
        assert done.returncode == 0, done.stderr
        met = [
            line.removeprefix(_REPORT).split()
            for line in done.stderr.splitlines()
            if line.startswith(_REPORT)
        ]
        last = {point: number for point, number in met if point not in _LEAVE_NOTHING}
        self.finish(case.ways_back[0])
        return [Fault("", point, int(number)) for point, number in met if ALL or number == last.get(point)]

    def cut(self, case: Case, fault: Fault) -> subprocess.CompletedProcess[str]:
        """Run the command of a case with a fault. Return when no plugin that it has called runs any more."""
        done = self.run(*case.command.split(), **fault.env)
        if fault.action != TELL:
            assert f"{_REPORT}{fault.point} {fault.number}" in done.stderr, "the point was not reached"
        lists = conflists.load_all(Path(f"/proc/{self.host.pid}/root/etc/cni/net.d"))
        assert [each for each in lists if isinstance(each, conflists.Broken)] == []
        return done

    def finish(self, steps: tuple[Step, ...]) -> None:
        """Go a way back."""
        for number, step in enumerate(steps):
            if step == END:
                self.end()
                self.require(self.without_box)
                self.begin()
                return
            done = self.run(*step.command.split())
            # What a command has finished before, the next one must find.
            is_refused = number == 0 and step.refusal and step.refusal in done.stderr
            assert done.returncode == 0 or is_refused, f"{step.command}: {done.stderr}"
        self.require(self.with_box)

    def require(self, before: Snapshot) -> None:
        """Require the host to be as in a snapshot, as soon as the kernel has ended namespaces and links."""
        deadline_s = time.monotonic() + patience(2)
        while left := before.differences(self.host.snapshot()):
            assert time.monotonic() < deadline_s, "\n".join(left)
            time.sleep(0.1)


@pytest.fixture
def world(host: Host, tmp_path: Path) -> KillWorld:
    """Return the host."""
    return KillWorld(host, tmp_path)


def test_commands_that_are_killed_anywhere(world: KillWorld) -> None:
    for case in CASES.values():
        for number, position in enumerate(world.positions(case)):
            for way in case.ways_back if ALL else [case.ways_back[number % len(case.ways_back)]]:
                world.prepare(case)
                done = world.cut(case, position._replace(action=KILL))
                assert done.returncode == -signal.SIGKILL
                with naming(case, position, way):
                    world.finish(way)


def test_a_step_that_fails_or_is_interrupted_is_undone(world: KillWorld) -> None:
    for case in (CASES["connect"], CASES["publish"], CASES["unpublish"]):
        for number, position in enumerate(world.positions(case)):
            for action in (FAIL, TERM) if ALL else [(FAIL, TERM)[number % 2]]:
                world.prepare(case)
                before = world.host.snapshot()
                done = world.cut(case, position._replace(action=action))
                assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr
                with naming(case, position, ()):
                    world.require(before)
                world.finish(case.ways_back[0])
    case = CASES["create"]
    for position in world.positions(case):
        assert world.cut(case, position._replace(action=FAIL)).returncode == 1
        is_written = position.point == "store.written"
        assert world.run("network", "inspect", "new").returncode == (0 if is_written else 1)
        world.finish(case.ways_back[0])


def test_a_connection_that_is_not_finished_is_shown(world: KillWorld) -> None:
    world.cut(CASES["connect"], Fault(KILL, "process.ended", 1))
    [mine] = json.loads(world.ok("show", "mine", "--json"))["networks"]
    assert sorted(each["problems"] for each in mine["attachments"]) == [[], [UNFINISHED]]
    done = world.run("repair")
    assert (done.returncode, done.stdout.count(UNFINISHED)) == (1, 1)
    assert "has attached containers" in world.run("network", "rm", "mine").stderr
    # Other attachments of the container can be changed.
    world.ok(*PUBLISH.command.split())
    world.ok(*UNPUBLISH.command.split())
    world.finish((DISCONNECT,))


@contextmanager
def naming(case: Case, position: Fault, way: tuple[Step, ...]) -> Iterator[None]:
    """Name what was cut short, and the way back, when that has failed."""
    try:
        yield
    except AssertionError as error:
        error.add_note(
            f"{case.command}: {position.point} {position.number}, by {[each.command for each in way]}"
        )
        raise

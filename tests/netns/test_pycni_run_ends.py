"""`pycni run` is stopped, killed, or runs beside other commands: what remains, and what removes it."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from cni import faults
from cni.cli import main
from cni.kernel import mounts
from tests.netns.run_world import RunWorld, children, processes
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

RUN = ("--network", "web", "-p", "8080:80", "--name", "box")
# A plugin that waits in ADD until a test lets it continue.
WAITING = """#!/bin/sh
[ $CNI_COMMAND = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.1.0"]}' && exit
[ $CNI_COMMAND = ADD ] || exit 0
trap 'exit 1' TERM
touch FOLDER/adding
until [ -e FOLDER/go ]; do sleep 0.02; done
echo '{"cniVersion": "1.1.0"}'
"""


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[RunWorld]:
    """Yield a host with the network "web", which a container has used."""
    world = RunWorld(host, tmp_path)
    world.ok("run", *RUN, "true")
    yield world
    world.close()


def waiting(world: RunWorld) -> dict[str, str]:
    """Add a plugin that waits in ADD to the network. Return the environment that finds it."""
    folder = world.folder / "waiting"
    folder.mkdir()
    (folder / "waiting").write_text(WAITING.replace("FOLDER", str(world.folder)))
    (folder / "waiting").chmod(0o755)
    [plugin, ports] = json.loads(world.host.run(["cat", "/etc/cni/net.d/web.conflist"]))["plugins"]
    world.configure("web", plugin, ports, {"type": "waiting"})
    return {"CNI_PATH": f"{world.host.bindir}:{folder}"}


def collect(world: RunWorld) -> None:
    world.ok("gc", "web", "--dead-only")


def delete(world: RunWorld) -> None:
    world.ok("del", "web", "box")


def run_again(world: RunWorld) -> None:
    world.ok("run", *RUN, "true")


def remove_network(world: RunWorld) -> None:
    world.ok("network", "rm", "--force", "web")


REMEDIES = [collect, delete, run_again, remove_network]


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda each: str(each.__name__))
def test_what_a_killed_run_leaves_is_removed(world: RunWorld, remedy: Callable[[RunWorld], None]) -> None:
    before = world.host.snapshot()
    mark = f"PYCNI_MARK={world.folder.name}-{os.getpid()}"
    call = world.started_until(*RUN, "-e", mark, script="setsid sleep 1000 & exec sleep 1000")
    world.end(call, signal.SIGKILL)
    # The kernel kills the processes a moment after their parent.
    wait_until(lambda: not processes(mark))
    assert [each["netnsState"] for each in world.attachments()] == ["gone"]
    assert "is not running" in world.run("publish", "box", "8081:80").stderr
    assert "cached result" in world.ok("gc", "web", "--dead-only", "--dry-run")
    remedy(world)
    wait_until(lambda: world.remains(before) == [])


@pytest.mark.parametrize("remedy", [("gc", "web", "--dead-only"), ("run", *RUN, "true")])
def test_a_run_that_was_killed_in_add_leaves_nothing(world: RunWorld, remedy: tuple[str, ...]) -> None:
    before = world.host.snapshot()
    env = waiting(world)
    call = world.start(*RUN, "true", **env)
    wait_until((world.folder / "adding").exists)
    world.end(call, signal.SIGKILL)
    (world.folder / "go").touch()
    wait_until(lambda: not processes(f"{world.folder}/waiting"))
    # No result is cached: a second ADD without a DEL would be refused.
    world.ok(*remedy, **env)
    wait_until(lambda: [each for each in world.remains(before) if "web.conflist" not in each] == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_add_undoes_it(world: RunWorld, number: int) -> None:
    env = waiting(world)
    before = world.host.snapshot()
    call = world.start(*RUN, "true", **env)
    wait_until((world.folder / "adding").exists)
    done = world.end(call, number)
    assert (done.returncode, f"interrupted by {signal.Signals(number).name}" in done.stderr) == (125, True)
    assert world.remains(before) == []


def test_it_may_be_killed_at_any_point(world: RunWorld) -> None:
    before = world.host.snapshot()
    number, is_killed = BEFORE_MOUNT, True
    while is_killed:
        is_killed = world.host.call(_run_killed_at, str(world.host.bindir), number)
        for path in world.host.run(["find", "/var/lib/cni/results", "-name", ".unfinished*"]).split():
            world.host.run(["touch", "-d", "1 hour ago", path])
        world.ok("gc", "web", "--dead-only")
        assert [world.host.call(os.listdir, path) for path in ("/run/netns", "/run/pycni/runs")] == [[], []]
        number += 3
    # The last one ended by itself.
    assert number > POINTS
    wait_until(lambda: world.remains(before) == [])


BEFORE_MOUNT = -1
# Fewer than a run has.
POINTS = 15


def _run_killed_at(bindir: str, number: int) -> bool:
    """Run the command in a child, and kill it at the point of that number. Return whether it was killed."""
    child = os.fork()
    if child == 0:
        os.environ.update(CNI_PATH=bindir, PATH="/usr/sbin:/usr/bin:/sbin:/bin")
        count = 0

        def meet(point: str) -> None:
            nonlocal count
            # A plugin that outlives its caller is another test.
            if point != "process.started":
                count += 1
                if count == number:
                    _die()

        faults.arm(meet)
        if number == BEFORE_MOUNT:
            mounts.bind = _die
        os._exit(main.run(["run", *RUN, "--", "true"]))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in {0, -signal.SIGKILL}
    return os.WIFSIGNALED(status)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_process_that_waits_may_be_killed(world: RunWorld) -> None:
    before = world.host.snapshot()
    mark = f"PYCNI_MARK={world.folder.name}-{os.getpid()}"
    call = world.started_until(*RUN, "-e", mark)
    [first] = children(call.pid)
    os.kill(first, signal.SIGKILL)
    assert call.finish(LONG_S).returncode == 128 + signal.SIGKILL
    assert processes(mark) == []
    assert world.remains(before) == []


def test_a_namespace_of_others_stays(world: RunWorld) -> None:
    world.end(world.started_until(*RUN), signal.SIGKILL)
    world.host.run(["ip", "netns", "delete", "box"])
    world.sandboxes["box"] = world.host.sandbox("box")
    world.ok("gc", "web", "--dead-only")
    # The attachment of the former namespace has the same ID.
    world.ok("del", "web", "box")
    world.ok("add", "web", "box")
    assert [each["netnsState"] for each in world.attachments()] == ["alive"]
    world.ok("gc", "web", "--dead-only")
    world.ok("check", "web", "box")


def test_other_commands_at_once_are_safe(world: RunWorld) -> None:
    for name in ("one", "two"):
        world.ok("network", "create", name)
    world.ok("run", "--network", "one", "--network", "two", "true")
    before = world.host.snapshot()
    call = world.started_until(*RUN)
    changes = (
        ("network", "connect", "one", "box"),
        ("network", "connect", "two", "box"),
        ("publish", "box", "8081:80"),
        ("publish", "box", "8082:80"),
        ("run", "--network", "one", "true"),
    )
    _at_once(world, changes)
    [web] = [each for each in world.attachments() if each["network"] == "web"]
    assert {each["hostPort"] for each in web["ports"]} == {8080, 8081, 8082}
    assert sorted(each["ifname"] for each in world.attachments()) == ["eth0", "eth1", "eth2"]
    assert {each["netnsState"] for each in world.attachments()} == {"alive"}
    # The container may end before a change, or after it.
    results: list[int] = []
    undo = (
        ("network", "disconnect", "one", "box"),
        ("unpublish", "box", "8081"),
        ("publish", "box", "8083:80"),
    )
    threads = [
        threading.Thread(target=lambda each=each: results.append(world.run(*each).returncode))
        for each in undo
    ]
    for each in threads:
        each.start()
    assert world.end(call).returncode == 143
    for each in threads:
        each.join()
    assert set(results) <= {0, 1}
    assert world.attachments() == []
    assert world.remains(before) == []


def _at_once(world: RunWorld, commands: tuple[tuple[str, ...], ...]) -> None:
    errors: list[str] = []

    def run(arguments: tuple[str, ...]) -> None:
        done = world.run(*arguments)
        if done.returncode:
            errors.append(done.stderr)

    threads = [threading.Thread(target=run, args=(each,)) for each in commands]
    for each in threads:
        each.start()
    for each in threads:
        each.join(LONG_S)
    assert errors == []

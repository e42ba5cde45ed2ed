"""A worker is killed at any moment of a call: stdout never has a second document after the first one."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni.testing.faults import KILL, Fault
from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.netns.fault_world import CALM, CUT, Step, busy_world, world
from tests.support import scene
from tests.support.patience import LONG_S, wait_until
from tests.warm import peers, wire
from tests.warm.test_warm_deaths import is_undone, wait_for_end, waiting
from tests.warm.test_warm_peers import socket_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Answer
    from tests.netns.fault_world import World
    from tests.warm.conftest import WarmHost

__all__ = ["busy_world", "world"]

pytestmark = pytest.mark.forked
NOTE = "after it had begun to respond; DEL removes partial state"
PIPE = 4096
# Moments are tried until each way to end was seen so often.
SEEN, TRIES = 3, 4000


def _documents(text: str) -> list[dict[str, Any]]:
    """Return all JSON documents of a text."""
    found, rest = [], text.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


# ---- killed while it writes ----


class _Blocked(NamedTuple):
    """A call whose response is blocked halfway, and its worker."""

    launcher: subprocess.Popen[bytes]
    reader: int
    worker: int


def _is_writing_to_pipe(pid: int) -> bool:
    try:
        return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return False


def _block(host: WarmHost, verb: str, do: str, env: dict[str, str], free: int) -> _Blocked:
    """Call a plugin whose stdout accepts a limited number of bytes."""
    host.odd().must()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2 * PIPE)
    os.write(writer, b" " * (2 * PIPE - free))
    places = [f"--net=/proc/{host.pid}/ns/net", f"--mount=/proc/{host.pid}/ns/mnt", "--wd=/"]
    usual = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "e", "CNI_PATH": "/x",
    }  # fmt: skip
    launcher = subprocess.Popen(
        ["/usr/bin/nsenter", *places, str(host.bindir / "odd")],
        stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE, env=BARE_ENV | usual | env,
    )  # fmt: skip
    os.close(writer)
    assert launcher.stdin is not None
    launcher.stdin.write(json.dumps({"cniVersion": "1.0.0", "name": "n", "do": do}).encode())
    launcher.stdin.close()
    launcher.stdin = None
    [server] = host.call(control.find)
    found: list[int] = []

    def is_one_blocked() -> bool:
        found[:] = [pid for pid in control.children(server.pid) if _is_writing_to_pipe(pid)]
        assert launcher.poll() is None
        return bool(found)

    wait_until(is_one_blocked)
    return _Blocked(launcher, reader, found[0])


def _end(blocked: _Blocked) -> tuple[str, str]:
    """Wait for the launcher to fail. Return what is on stdout and on stderr."""
    _, err = blocked.launcher.communicate(timeout=LONG_S)
    assert blocked.launcher.returncode == 1
    with os.fdopen(blocked.reader, "rb") as pipe:
        return pipe.read().decode().strip(), err.decode()


# Verb, what the plugin does, and how many bytes of the answer stdout takes.
ANSWERS = {
    "result": ("ADD", "", 0),
    "error": ("ADD", "error", 0),
    "versions": ("VERSION", "", 0),
    "part of an error": ("ADD", "x" * 3 * PIPE, PIPE),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_worker_killed_while_it_writes_leaves_no_other_document(warm_host: WarmHost, what: str) -> None:
    verb, do, free = ANSWERS[what]
    blocked = _block(warm_host, verb, do, {}, free)
    os.kill(blocked.worker, signal.SIGKILL)
    out, err = _end(blocked)
    assert (out == "") if free == 0 else (out.startswith("{") and "worker" not in out)
    assert f"pycni: plugin odd: the worker was killed during the call, {NOTE}\n" in err
    assert warm_host.odd().ok


def test_a_launcher_whose_wait_ended_adds_nothing_to_the_response(warm_host: WarmHost) -> None:
    blocked = _block(warm_host, "ADD", "", {"PYCNI_WARM_ANSWER_S": "1"}, 0)
    out, err = _end(blocked)
    assert out == ""
    assert f"the worker did not respond in time and was killed, {NOTE}" in err
    wait_for_end(blocked.worker)
    assert warm_host.odd().ok


def _ask_for_versions(path: str, output: str, right: int) -> bytes:
    with peers.connect(path) as connection:
        call = peers.call_of("odd", {"CNI_COMMAND": "VERSION"})
        return peers.ask(connection, call, "/dev/null", output, right)


def test_a_worker_whose_launcher_has_given_up_prints_nothing(warm_host: WarmHost, tmp_path: Path) -> None:
    """The launcher has printed its error object by then."""
    warm_host.odd().must()
    output = tmp_path / "told"
    for right, answer in ((1, wire.STATUS + b"\0"), (0, b"")):
        output.write_text("")
        assert warm_host.call(_ask_for_versions, socket_of(warm_host), str(output), right) == answer
        assert bool(output.read_text()) == bool(right)
    warm_host.await_log("was killed by signal 9")
    assert warm_host.odd().ok


# ---- killed between the answer and the status ----


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_worker_killed_after_its_response_leaves_one_document(warm_host: WarmHost, number: int) -> None:
    launcher, worker = waiting(warm_host, "end slowly")
    os.kill(worker, number)
    out, err = launcher.communicate(timeout=LONG_S)
    assert (launcher.returncode, _documents(out)) == (1, [{"cniVersion": "1.0.0"}])
    assert NOTE in err
    assert not is_undone(warm_host)
    assert warm_host.odd().ok


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize("how", ["DEL", "GC"])
def test_an_add_whose_worker_is_killed_after_its_response_is_cleaned_up(busy_world: World, how: str) -> None:
    world, step = busy_world, Step(scene.INTERFACE, "ADD")
    before = world.host.snapshot()
    world.prepare(step)
    # The first one is that of host-local.
    fault = Fault(KILL, "answer.written", 2)
    answer = world.call_at(step, fault, {})
    assert fault.was_met(answer)
    assert answer.status == 1
    [document] = _documents(answer.stdout)
    assert document["ips"]
    assert NOTE in answer.stderr
    if how == "GC":
        world.collect([CALM])
        # In the container only lo is as its ADD has left it.
        assert [each for each in world.left(before) if f": {CUT}: " not in each] == []
    world.delete(CUT)
    assert world.left(before) == []
    assert world.is_calm()


# ---- killed at any moment ----


def _way_to_end(answer: Answer, is_expected: Callable[[dict[str, Any]], bool]) -> str:
    """Return how a call has ended. Fail the test if it printed two documents."""
    documents, is_noted = _documents(answer.stdout), NOTE in answer.stderr
    assert len(documents) <= 1, answer
    if documents and documents[0].get("code") == 11:
        assert (answer.status, is_noted) == (1, False), answer
        return "before"
    assert [is_expected(each) for each in documents] in ([], [True]), answer
    if is_noted:
        assert answer.status == 1
        return "behind" if documents else "in between"
    assert documents, answer
    return "done"


@pytest.mark.parametrize("do", ["die soon", "die soon and fail"])
def test_a_worker_killed_at_any_moment_leaves_one_document_at_most(
    warm_host: WarmHost, do: str, record_property: Callable[[str, object], None]
) -> None:
    """The kernel kills it by a timer, at a moment between the plugin's work and the status."""
    status = int(do == "die soon and fail")

    def is_expected(document: dict[str, Any]) -> bool:
        return bool(document.get("code", 0) == (101 if status else 0))

    seen = dict.fromkeys(("before", "in between", "behind", "done"), 0)
    after_s = 0.0003
    for _ in range(TRIES):
        delay = after_s * random.uniform(0.8, 1.2)  # noqa: S311 - any moment will do
        answer = warm_host.odd(do, env={"DIE_AFTER_S": f"{delay:.6f}"})
        way = _way_to_end(answer, is_expected)
        assert answer.status == (status if way == "done" else 1)
        seen[way] += 1
        # Towards the moment of the answer.
        after_s *= 1.05 if way in {"before", "in between"} else 0.95
        if min(seen["before"], seen["behind"], seen["done"]) >= SEEN:
            break
    record_property("figures", ("workers killed around their answer", do, seen))
    assert min(seen["before"], seen["behind"]) >= SEEN
    assert warm_host.odd().ok

"""A guard and its helper: nothing that arrives in a socket is lost, whichever of both is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.service import control, status, units
from cni.service.client import FOLDER
from cni.service.guard import LISTEN_FD
from cni.warm.control import children
from tests.helper import echo_serve as serve
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from cni.testing import Host

HELPER = serve.HELPER
PORT, OTHER_PORT = "5353", "5354"
SENT = 200


@pytest.fixture
def place(host: Host) -> Iterator[Host]:
    """Yield a host with the files of the helper; end the helper."""
    host.run(["ip", "link", "set", "lo", "up"])
    host.run(["mkdir", "-p", str(serve.FOLDER)])
    host.call(serve.PORTS.write_text, PORT)
    try:
        yield host
    finally:
        host.call(_kill_all)


def _kill_all() -> None:
    for each in control.find():
        # A guard restarts its helper, and a helper whose guard is killed becomes a guard.
        os.kill(each.pid, signal.SIGSTOP)
        for pid in (*children(each.pid), each.pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not control.find())


def _report() -> dict[str, Any]:
    """Return the report of the one helper that runs, as soon as it works."""
    reports: list[dict[str, Any]] = []

    def is_working() -> bool:
        reports[:] = [report for each in control.find() if "helper" in (report := control.report(each))]
        return bool(reports)

    wait_until(is_working)
    [report] = reports
    return report


def _lose(act: Callable[[], object]) -> tuple[int, set[str]]:
    """Send datagrams, and act in between. Return how many had no answer, and who has answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", int(PORT)))
        client.settimeout(LONG_S)
        for number in range(SENT):
            if number == SENT // 2:
                act()
            client.send(b"%d" % number)
            time.sleep(0.001)
        seen = dict(client.recv(100).decode().split() for _ in range(SENT))
    return SENT - len(seen), set(seen.values())


def _serving() -> set[str]:
    """Return who answers now: each helper has answered some or none before, as the machine was busy."""
    lost, answered = _lose(lambda: None)
    assert lost == 0
    return answered


def _start() -> dict[str, Any]:
    HELPER.wake(until_done=True)
    return _report()


def _kill_helper() -> tuple[int, dict[str, Any], dict[str, Any]]:
    before = _start()
    lost, answered = _lose(lambda: os.kill(before["helper"], signal.SIGKILL))
    after = _report()
    assert answered <= {str(before["helper"]), str(after["helper"])}
    assert _serving() == {str(after["helper"])}
    return lost, before, after


def test_a_killed_helper_loses_no_datagram(place: Host) -> None:
    lost, before, after = place.call(_kill_helper)
    assert lost == 0
    assert (after["pid"], after["restarts"]) == (before["pid"], 1)
    assert after["holds"] == [PORT]


def _kill_guard() -> tuple[int, dict[str, Any], dict[str, Any]]:
    before = _start()
    lost, _ = _lose(lambda: os.kill(before["pid"], signal.SIGKILL))
    wait_until(lambda: status.holder(control.find()[0].path) == before["helper"] if control.find() else False)
    after = _report()
    assert _serving() == {str(after["helper"])}
    return lost, before, after


def test_a_killed_guard_loses_no_datagram(place: Host) -> None:
    lost, before, after = place.call(_kill_guard)
    assert lost == 0
    # The helper has become the guard of a new helper.
    assert after["pid"] == before["helper"] != after["helper"]


def _upgrade() -> tuple[int, set[str], dict[str, Any], dict[str, Any]]:
    before = _start()
    lost, answered = _lose(HELPER._replace(version="next").wake)
    wait_until(lambda: not Path(f"/proc/{before['pid']}").exists())
    after = _report()
    assert _serving() == {str(after["helper"])}
    return lost, answered, before, after


def test_a_helper_of_another_build_has_the_sockets_and_loses_no_datagram(place: Host) -> None:
    lost, answered, before, after = place.call(_upgrade)
    assert lost == 0
    assert answered <= {str(before["helper"]), str(after["helper"])}
    assert after["build"] == "next" != before["build"]
    assert (after["restarts"], after["holds"]) == (0, [PORT])
    sockets = place.run(["ls", "/run/pycni/helpers"]).split()
    assert len([each for each in sockets if each.endswith(".sock")]) == 1


def _change_ports() -> list[list[str]]:
    holds = [_start()["holds"]]
    for ports in (f"{PORT} {OTHER_PORT}", OTHER_PORT):
        serve.PORTS.write_text(ports)
        holds.append(_start()["holds"])
    os.kill(_report()["helper"], signal.SIGKILL)
    wait_until(lambda: (report := _report())["restarts"] == 1 and report["holds"])
    holds.append(_report()["holds"])
    # The guard has closed its copy, too: the port is free.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", int(PORT)))
    return holds


def test_sockets_come_and_go_while_the_helper_runs(place: Host) -> None:
    assert place.call(_change_ports) == [[PORT], [PORT, OTHER_PORT], [OTHER_PORT], [OTHER_PORT]]


def _eat() -> tuple[dict[str, Any], dict[str, Any]]:
    before = _start()
    serve.EAT.touch()
    HELPER.wake()
    wait_until(lambda: _report()["restarts"] == 1)
    HELPER.wake(until_done=True)
    return before, _report()


def test_a_helper_that_needs_too_much_memory_is_started_again(place: Host) -> None:
    before, after = place.call(_eat)
    assert after["pid"] == before["pid"]
    assert after["holds"] == [PORT]
    # The limit is no limit of the guard: it has only its own memory.
    assert 2_000 < after["pss_kib"] < 48 * 1024


def _fail() -> tuple[str, float]:
    _start()
    serve.FAIL.touch()
    HELPER.wake()
    [running] = control.find()
    wait_until(lambda: status.read(running.path).get("restarts", 0) >= 3)
    wait_until(lambda: not HELPER.is_running())
    shown = control.report(running)
    # A guard that pauses ends at once.
    before_s = time.monotonic()
    control.stop(control.find())
    return shown["name"], time.monotonic() - before_s


def test_a_helper_that_always_fails_is_started_with_longer_and_longer_pauses(place: Host) -> None:
    name, _ = place.call(_fail)
    assert name == HELPER.name
    assert place.call(control.find) == []


def _refuse() -> tuple[CniError, list[str], dict[str, Any]]:
    _start()
    serve.REFUSE.touch()
    with pytest.raises(CniError) as refused:
        HELPER.wake(until_done=True)
    serve.REFUSE.unlink()
    HELPER.wake(until_done=True)
    return refused.value, _report()["holds"], _report()


def test_a_caller_that_waits_hears_of_a_failure(place: Host) -> None:
    error, holds, report = place.call(_refuse)
    assert (error.code, error.msg) == (
        Code.TRY_AGAIN,
        "the helper of echo has failed: refused as the file says",
    )
    assert (holds, report["restarts"]) == ([PORT], 0)


def _stop() -> list[list[str]]:
    _start()
    stopped = control.stop(control.find())
    files = [each.name for each in FOLDER.iterdir()]
    again = _start()
    return [[each.name for each in stopped], files, again["holds"]]


def test_a_helper_is_stopped_and_resumes_its_work(place: Host) -> None:
    stopped, files, holds = place.call(_stop)
    assert (stopped, holds) == (["echo"], [PORT])
    assert [each for each in files if not each.endswith(".lock")] == []


class Systemd:
    """The part of systemd for the units of a helper: it binds, runs what comes after, starts the service."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        Path(HELPER.path).parent.mkdir(parents=True, mode=0o700)
        self._listener.bind(HELPER.path)
        self._listener.listen()

    def serve(self) -> int:
        """Start the service when a request has come, as `pycni helper run` does."""
        pid = os.fork()
        if pid == 0:
            os.dup2(self._listener.fileno(), LISTEN_FD)
            HELPER.execute()
        return pid

    def wake(self, build: str = "") -> int:
        """Let a caller wake the unit; return the process ID of the service."""
        if (caller := os.fork()) == 0:
            HELPER._replace(version=build).wake(until_done=True)
            os._exit(0)
        service = self.serve()
        assert os.waitpid(caller, 0)[1] == 0
        return service


def _serve_as_unit() -> dict[str, Any]:
    systemd = Systemd()
    service = systemd.wake()
    shown = _report()
    assert (shown["pid"], shown["unit"], shown["holds"]) == (service, True, [PORT])
    [stopped] = control.stop(control.find())
    assert os.waitpid(service, 0) == (stopped.pid, 0)
    # The socket stays, and a request starts the service again.
    assert Path(HELPER.path).exists()
    # A caller of another build lets the unit start again, and takes what the unit has.
    first = systemd.wake()
    if (caller := os.fork()) == 0:
        HELPER._replace(version="other").wake()
        os._exit(0)
    assert os.waitpid(first, 0)[1] == 0
    second = systemd.serve()
    assert os.waitpid(caller, 0)[1] == 0
    shown = _report()
    assert shown["pid"] == second
    HELPER._replace(version="").wake()
    control.stop(control.find())
    os.waitpid(second, 0)
    return shown


def test_a_unit_of_systemd_runs_the_helper(place: Host) -> None:
    assert place.call(_serve_as_unit)["build"] != "other"


def test_the_units_name_the_sockets_path_and_the_command() -> None:
    texts = units.units(Path("/opt/x/bin/pycni"))
    socket_text, service_text = texts[units.SOCKET_NAME], texts[units.SERVICE_NAME]
    [bound] = re.findall("^ListenSequentialPacket=(.*)$", socket_text, re.MULTILINE)
    assert f'mv -fT {bound} "$$(/opt/x/bin/pycni helper path %i)"' in socket_text
    assert "ExecStart=/opt/x/bin/pycni helper run %i\n" in service_text
    assert "MemoryMax=" in service_text
    assert "Restart=on-failure" in service_text


def _answer_garbage() -> tuple[list[bytes], dict[str, Any]]:
    _start()
    answers = []
    for text in (b"{", b"[]", b"null", b'{"build": []}', b'{"wait": 1}', b"\xff" * 3000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(LONG_S)
            connection.connect(HELPER.path)
            connection.send(text)
            answers.append(connection.recv(1000))
    return answers, _report()


def test_a_request_that_is_none_is_answered_or_refused(place: Host) -> None:
    answers, report = place.call(_answer_garbage)
    assert report["restarts"] == 0
    assert [bool(each) for each in answers] == [False, False, False, True, True, False]
    assert json.loads(answers[-2])["build"] == report["build"]

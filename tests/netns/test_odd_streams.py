"""Calls with unusual streams, without rights, with few descriptors, in a deleted folder: cold and warm."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import make_bindir
from cni.testing.executables import make_command, make_warm_bindir
from cni.testing.place import BARE_ENV
from plugin_table import declared, packages
from tests.netns.security_host import make_host
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Host

WAYS = {"cold": {"PYCNI_WARM": "off"}, "warm": {}}
IPAM = {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}]]}
BRIDGE = {"cniVersion": "1.0.0", "name": "net1", "type": scene.INTERFACE, "bridge": "br0", "ipam": IPAM}
# What the note of a port on localhost is for.
PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "::1"}
PORTMAP = {
    "cniVersion": "1.0.0", "name": "net1", "type": scene.PORTS, "backend": "nftables",
    "runtimeConfig": {"portMappings": [PORT]},
    "prevResult": {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "fd01::2/64", "interface": 0}],
    },
}  # fmt: skip


class Case:
    """One way to call plugins on a host."""

    def __init__(self, host: Host, env: dict[str, str]) -> None:
        self.host = host
        host.sandbox("c1")
        self._env = env

    def env(self, verb: str) -> dict[str, str]:
        usual = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.host.bindir),
        }  # fmt: skip
        return BARE_ENV | usual | self._env

    def start(self, plugin: str, verb: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Call a plugin from a child that is in the host's namespaces."""
        holder = f"/proc/{self.host.pid}/ns"
        places = [f"--net={holder}/net", f"--mount={holder}/mnt", "--wd=/"]
        usual: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        program = [*streams.pop("before", []), str(self.host.bindir / plugin)]
        return subprocess.Popen(
            ["/usr/bin/nsenter", *places, *program], env=self.env(verb), **usual | streams
        )

    def call(self, plugin: str, verb: str, **streams: Any) -> tuple[int, dict[str, Any]]:
        """Call a plugin and return its status and its one JSON document."""
        process = self.start(plugin, verb, **streams)
        out, _ = process.communicate(timeout=60)
        return process.returncode, json.loads(out) if out else {}


@pytest.fixture(params=WAYS)
def case(
    request: pytest.FixtureRequest, served_bindir: Path, launcher: Path, tmp_path: Path
) -> Iterator[Case]:
    """Yield a host. Its server is forked if the test has the mark `forked`: it never gets the streams."""
    is_forked = request.node.get_closest_marker("forked")
    bindir = served_bindir if is_forked else make_warm_bindir(tmp_path, packages(declared()), launcher)
    with make_host(bindir) as host:
        yield Case(host, WAYS[request.param])


# Descriptors that are closed at the end of the test.
OPEN: list[int] = []


def keep_open(fd: int) -> int:
    OPEN.append(fd)
    return fd


@pytest.fixture(autouse=True)
def close_descriptors() -> Iterator[None]:
    yield
    while OPEN:
        os.close(OPEN.pop())


def text_file(conf: dict[str, Any]) -> int:
    """Return a descriptor to read a configuration from."""
    fd = keep_open(os.memfd_create("conf"))
    os.write(fd, json.dumps(conf).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


# ---- stderr ----


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return keep_open(writer)


def full_pipe() -> int:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        # Nothing reads from the other end, which is open until the test ends.
        keep_open(reader)
        return keep_open(writer)


UNWRITABLE: dict[str, Callable[[], int]] = {
    "closed pipe": closed_pipe,
    "full pipe": full_pipe,
    "full disk": lambda: keep_open(os.open("/dev/full", os.O_WRONLY)),
    "read only": lambda: keep_open(os.open("/dev/null", os.O_RDONLY)),
}


@pytest.mark.forked
@pytest.mark.parametrize("what", UNWRITABLE)
def test_a_stderr_that_cannot_be_written_is_no_failure(case: Case, what: str) -> None:
    """portmap writes a note, and VERSION without a verb writes nothing else."""
    assert case.call(scene.INTERFACE, "ADD", stdin=text_file(BRIDGE), stderr=UNWRITABLE[what]())[0] == 0
    conf = PORTMAP
    process = case.start(scene.PORTS, "ADD", stdin=text_file(conf))
    _, noted = process.communicate(timeout=60)
    assert process.returncode == 0
    assert noted, "there is no note"
    for verb in ("ADD", "CHECK", "DEL"):
        status, told = case.call(scene.PORTS, verb, stdin=text_file(conf), stderr=UNWRITABLE[what]())
        assert (status, "code" in told) == (0, False)
    assert case.call(scene.INTERFACE, "", stderr=UNWRITABLE[what]()) == (0, {})
    # The next caller of the same worker reads nothing of it.
    process = case.start(scene.PORTS, "ADD", stdin=text_file(conf))
    assert process.communicate(timeout=60)[1] == noted


@pytest.mark.parametrize("what", UNWRITABLE)
def test_the_command_fails_for_its_own_reason(tmp_path: Path, what: str) -> None:
    bindir = make_bindir(tmp_path, packages(declared()))
    command = make_command(tmp_path, bindir)
    done = subprocess.run(
        [command, "nonsense"], stderr=UNWRITABLE[what](), stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 2


# ---- stdout ----


@pytest.mark.forked
@pytest.mark.parametrize("what", sorted(UNWRITABLE.keys() - {"full pipe"}))
def test_a_stdout_that_cannot_be_written_is_a_failure_that_is_undone(case: Case, what: str) -> None:
    case.call(scene.INTERFACE, "ADD", stdin=text_file(BRIDGE))
    case.call(scene.INTERFACE, "DEL", stdin=text_file(BRIDGE))
    before = case.host.snapshot()
    process = case.start(scene.INTERFACE, "ADD", stdin=text_file(BRIDGE), stdout=UNWRITABLE[what]())
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert before.differences(case.host.snapshot()) == []


@pytest.mark.forked
def test_a_full_stdout_that_does_not_block_is_waited_for(case: Case) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b" " * 4096)
    process = case.start(scene.INTERFACE, "ADD", stdin=text_file(BRIDGE), stdout=writer)
    os.close(writer)
    time.sleep(1)
    with os.fdopen(reader, "rb") as pipe:
        answer = json.loads(pipe.read())
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert answer["ips"]


# ---- stdin ----


@pytest.mark.forked
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("pause_s", [0, 0.3])
def test_a_stdin_that_does_not_block_is_read_to_its_end(case: Case, kind: str, pause_s: float) -> None:
    with ExitStack() as stack:
        if kind == "pipe":
            reader, writer = os.pipe()
        else:
            ours, theirs = socket.socketpair()
            reader, writer = theirs.detach(), ours.detach()
        stack.callback(os.close, reader)
        os.set_blocking(reader, False)
        process = case.start(scene.INTERFACE, "ADD", stdin=reader)
        data = json.dumps(BRIDGE | {"padding": "x" * 300_000}).encode()

        def write() -> None:
            time.sleep(pause_s)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(writer, rest[:50_000]) :]
                time.sleep(pause_s / 10)
            os.close(writer)

        thread = threading.Thread(target=write)
        thread.start()
        out, _ = process.communicate(timeout=60)
        thread.join()
        assert (process.returncode, bool(json.loads(out).get("ips"))) == (0, True)


UNREADABLE: dict[str, Callable[[], int]] = {
    "directory": lambda: keep_open(os.open("/", os.O_RDONLY)),
    "write only": lambda: keep_open(os.open("/dev/null", os.O_WRONLY)),
}


@pytest.mark.forked
@pytest.mark.parametrize("what", UNREADABLE)
def test_a_stdin_that_cannot_be_read_is_an_error_object(case: Case, what: str) -> None:
    for verb in ("ADD", "CHECK", "DEL"):
        status, told = case.call(scene.INTERFACE, verb, stdin=UNREADABLE[what]())
        assert (status, told["code"]) == (1, 5)
        assert "could not read the network configuration from stdin" in told["msg"]
        assert told["details"].startswith("Open stdin for reading")
    assert case.call(scene.INTERFACE, "VERSION", stdin=UNREADABLE[what]())[0] == 0
    process = case.start(scene.INTERFACE, "", stdin=UNREADABLE[what]())
    assert process.communicate(timeout=60)[1].startswith(b"CNI bridge plugin v")


@pytest.mark.forked
def test_closed_streams_are_no_traceback(case: Case) -> None:
    for closing in ("<&-", "<&- 2>&-", "2>&-"):
        script = f'exec "$0" {closing}'
        status, told = case.call(scene.INTERFACE, "ADD", before=["sh", "-c", script])
        assert (status, told["code"]) == (1, 6)
    process = case.start(
        scene.INTERFACE, "ADD", before=["sh", "-c", 'exec "$0" >&-'], stdin=text_file(BRIDGE)
    )
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err


# ---- rights and resources ----


def test_a_call_without_rights_is_told_to_run_as_root(case: Case) -> None:
    """It may open the namespace, and not enter it."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    case.host.run(["install", "-d", "-m", "700", "/run/pycni"])
    for plugin, conf in ((scene.INTERFACE, BRIDGE), (scene.LOOPBACK, BRIDGE | {"type": scene.LOOPBACK})):
        status, told = case.call(plugin, "ADD", stdin=text_file(conf), before=drop)
        assert (status, told["code"]) == (1, 100)
        assert "operation not permitted" in told["msg"]
        assert "Run as root" in told["details"]
        assert "fault of the plugin" not in json.dumps(told)


def test_a_call_with_few_descriptors_is_told_so(case: Case) -> None:
    found = set()
    for number in range(6, 14):
        status, told = case.call(
            scene.INTERFACE,
            "ADD",
            stdin=text_file(BRIDGE),
            before=["prlimit", f"--nofile={number}:{number}", "--"],
        )
        assert "fault of the plugin" not in json.dumps(told)
        found.add((status, told.get("code", 0)))
        if status == 0:
            assert case.call(scene.INTERFACE, "DEL", stdin=text_file(BRIDGE)) == (0, {})
    assert found <= {(0, 0), (1, 5), (1, 100), (1, 106), (1, 8), (1, 11), (1, 0)}


def test_a_folder_that_is_gone_is_no_failure(case: Case) -> None:
    script = 'mkdir /run/gone && cd /run/gone && rmdir /run/gone && exec "$0"'
    assert case.call(scene.INTERFACE, "ADD", stdin=text_file(BRIDGE), before=["sh", "-c", script])[0] == 0

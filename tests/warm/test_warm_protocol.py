"""The protocol: the worker's connection reads what the compiled launcher sends."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.state import executables
from cni.testing import Host, warm, why_no_namespaces
from cni.warm import connection
from plugin_table import ROOT
from tests.support.patience import LONG_S
from tests.warm import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

NS_GET_MNTNS_ID = 0x8008B705  # linux/nsfs.h
TEXT = (ROOT / "build/launcher/protocol.md").read_text()

# What a launcher of build 1.2-abc sends when it is called as /x/first with two variables and umask 027.
GOLDEN = b"\0".join(
    [b"PYCNI-WARM 1 27", b"1.2-abc", b"first", b"/x/first", b"CNI_COMMAND=ADD", b"A=b=c\xff", b""]
)


def test_the_page_agrees_with_the_header() -> None:
    magic, version = wire.DEFINED["MAGIC"].strip('"'), wire.DEFINED["PROTOCOL_VERSION"]
    assert wire.DEFINED["MAX_REQUEST"] == "(160 * 1024)"
    assert f"{wire.MAX_REQUEST} bytes" in TEXT
    assert f"{magic} <protocol version, {version}> <umask, octal>" in TEXT
    for each in (wire.ACCEPTED, wire.GO, wire.STATUS, wire.STOP, wire.REFUSED):
        assert f"`{each.decode()}`" in TEXT


class Meeting:
    """A connection's worker end in this process, and the launcher's end."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(folder / "socket"))
        self._listener.listen()
        self._listener.settimeout(0)
        self.connection = connection.Connection(connection.load(library), self._listener.fileno(), "1.2-abc")
        self.launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.launcher.settimeout(LONG_S)

    def knock(self) -> socket.socket:
        self.launcher.connect(self._listener.getsockname())
        return self.launcher

    def close(self) -> None:
        self.connection.close()
        self.launcher.close()
        self._listener.close()


@pytest.fixture
def meeting(launcher: Path, tmp_path: Path) -> Iterator[Meeting]:
    made = Meeting(launcher.with_name(connection.FILE), tmp_path)
    yield made
    made.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_call_is_read_and_accepted(meeting: Meeting) -> None:
    meeting.knock().send(GOLDEN)
    call = meeting.connection.read(meeting.connection.accept())
    assert call is not None
    assert call[:2] == ("first", "/x/first")
    assert call.env() == {"CNI_COMMAND": "ADD", "A": "b=c\udcff"}
    assert meeting.launcher.recv(10) == wire.ACCEPTED


def test_the_first_variable_of_a_name_counts_and_nameless_ones_do_not(meeting: Meeting) -> None:
    meeting.knock().send(b"PYCNI-WARM 1 22\0" + b"1.2-abc\0n\0e\0X=1\0X=2\0=C:=x\0none\0EMPTY=\0")
    call = meeting.connection.read(meeting.connection.accept())
    assert call is not None
    assert call.env() == {"X": "1", "EMPTY": ""}


def test_a_call_without_variables_has_none(meeting: Meeting) -> None:
    meeting.knock().send(b"PYCNI-WARM 1 0\0" + b"1.2-abc\0n\0e\0")
    call = meeting.connection.read(meeting.connection.accept())
    assert call is not None
    assert (call.name, call.env()) == ("n", {})


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0",
        GOLDEN[:-1],
        GOLDEN[:20],
        GOLDEN.replace(b"1.2-abc", b"1.2-abd"),
        GOLDEN.replace(b"1.2-abc", b"1.2-abcd"),
        GOLDEN.replace(b"WARM 1 ", b"WARM 2 "),
        GOLDEN.replace(b" 27", b" 99"),
        GOLDEN.replace(b" 27", b" -1"),
        GOLDEN.replace(b" 27", b" 27 "),
        GOLDEN.replace(b" 27", b" "),
        b"PYCNI-WARM 1\0" + b"1.2-abc\0n\0e\0",
        b"PYCNI-WARM 1 27\0" + b"1.2-abc\0n\0",
        b"PYCNI-WARM 1 27\0",
        b"PYCNI-WARM 1 27",
        b"OTHER 1 27\0" + b"1.2-abc\0n\0e\0",
        GOLDEN + b"A=" + b"x" * (wire.MAX_REQUEST - len(GOLDEN)) + b"\0",
        os.urandom(500),
    ],
)
@pytest.mark.parametrize("number_of_files", [0, 1, 30])
def test_a_malformed_request_is_refused_and_no_descriptor_stays_open(
    meeting: Meeting, data: bytes, number_of_files: int
) -> None:
    meeting.knock()
    before = open_files()
    with open("/dev/null", "rb") as null:  # noqa: PTH123 - for its number
        socket.send_fds(meeting.launcher, [data], [null.fileno()] * number_of_files)
    with pytest.raises(connection.RefusedError):
        meeting.connection.read(meeting.connection.accept())
    meeting.connection.close()
    assert open_files() == before
    with suppress(ConnectionResetError):
        assert meeting.launcher.recv(10) == b""


def test_a_whole_call_with_descriptors_is_refused(meeting: Meeting) -> None:
    """Descriptors of a call that no worker accepts would stay open."""
    with open("/dev/null", "rb") as null:  # noqa: PTH123 - for its number
        socket.send_fds(meeting.knock(), [GOLDEN], [null.fileno()])
    assert meeting.connection.accept() == connection.MALFORMED


@pytest.mark.parametrize("number_of_files", [0, 4, 6, 200, 253])
def test_other_than_five_descriptors_are_refused_and_closed(meeting: Meeting, number_of_files: int) -> None:
    meeting.knock().send(GOLDEN)
    meeting.connection.read(meeting.connection.accept())
    before = open_files()
    with open("/dev/null", "rb") as null:  # noqa: PTH123 - for its number
        socket.send_fds(meeting.launcher, [wire.GO], [null.fileno()] * number_of_files)
    with pytest.raises(connection.RefusedError):
        meeting.connection.adopt_context(2)
    assert open_files() == before


def test_a_launcher_that_has_ended_makes_no_call(meeting: Meeting) -> None:
    meeting.knock().close()
    assert meeting.connection.read(meeting.connection.accept()) is None


def test_nothing_runs_if_a_launcher_ends_before_it_sends_descriptors(meeting: Meeting) -> None:
    meeting.knock().send(GOLDEN)
    meeting.connection.accept()
    meeting.launcher.close()
    with pytest.raises(connection.RefusedError):
        meeting.connection.adopt_context(2)


def test_without_a_client_no_worker_waits(meeting: Meeting) -> None:
    assert meeting.connection.accept() == connection.NONE_PENDING


def test_a_slow_launcher_is_waited_for(meeting: Meeting) -> None:
    meeting.knock()
    assert meeting.connection.accept() == connection.NO_REQUEST_YET
    meeting.launcher.send(GOLDEN)
    call = meeting.connection.read(meeting.connection.receive(2))
    assert call is not None


def test_a_silent_client_is_refused_after_the_time_limit(meeting: Meeting) -> None:
    meeting.knock()
    assert meeting.connection.accept() == connection.NO_REQUEST_YET
    start = time.monotonic()
    with pytest.raises(connection.RefusedError, match="in time"):
        meeting.connection.read(meeting.connection.receive(1))
    assert 0.9 < time.monotonic() - start < LONG_S


class Listening:
    """A server that the test controls, at the socket that a launcher looks for."""

    def __init__(self, program: Path) -> None:
        path = subprocess.run([program, "--warm-socket"], capture_output=True, text=True, check=True).stdout
        self.path = path.strip()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(LONG_S)
        self._listener.bind(self.path)
        self._listener.listen()

    def accept(self) -> socket.socket:
        accepted, _ = self._listener.accept()
        accepted.settimeout(LONG_S)
        return accepted


def _golden(program: Path) -> tuple[bytes, bytes, list[str], int, str]:
    server = Listening(program)
    env = {b"CNI_COMMAND": b"ADD", b"A": b"b=c\xff"}
    os.umask(0o27)
    os.chdir("/usr")
    with open("/etc/hostname", "rb") as stdin:  # noqa: PTH123 - a file to hand over
        launcher = subprocess.Popen(
            [program], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        with server.accept() as accepted:
            call = accepted.recv(wire.MAX_REQUEST)
            accepted.send(wire.ACCEPTED)
            go, fds, _, _ = socket.recv_fds(accepted, 9, 9)
            names = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in fds]
            os.write(fds[1], b"answered")
            for fd in fds:
                os.close(fd)
            accepted.send(wire.STATUS + b"\7")
        out, _ = launcher.communicate(timeout=LONG_S)
    return call, go, names, launcher.returncode, out.decode()


def test_the_launcher_sends_the_documented_frames(launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(tmp_path) as host:
        warm.set_up(host.place)
        host.run(["mkdir", "/run/x"])
        program = executables.launcher(launcher.read_bytes(), "/nowhere", "1.2-abc")
        host.call(executables.put, Path("/run/x"), ["first"], program)
        call, go, names, status, out = host.call(_golden, Path("/run/x/first"))
        assert call == GOLDEN.replace(b"/x/", b"/run/x/")
        assert go == wire.GO
        assert (names[0], *names[3:]) == ("/etc/hostname", "/usr", "anon_inode:[eventfd]")
        assert (status, out) == (7, "answered")


def _refused(program: Path) -> str:
    """Run a worker that accepts and then refuses, before it reads GO."""
    server = Listening(program)
    launcher = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={})
    with server.accept() as accepted:
        accepted.recv(wire.MAX_REQUEST)
        accepted.send(wire.ACCEPTED)
        time.sleep(0.1)
        accepted.send(wire.REFUSED)
    out, _ = launcher.communicate(timeout=LONG_S)
    return out.decode()


def test_a_refused_call_runs_cold(launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(tmp_path) as host:
        warm.set_up(host.place)
        host.run(["mkdir", "/run/x"])
        bundle = "#!/bin/sh\necho cold as $PYCNI_NAME"
        host.run(["sh", "-c", f"echo '{bundle}' > /run/x/pycni; chmod +x /run/x/pycni"])
        program = executables.launcher(launcher.read_bytes(), "/run/x", "1.2-abc")
        host.call(executables.put, Path("/run/x"), ["first"], program)
        assert host.call(_refused, Path("/run/x/first")) == "cold as first\n"


def _fnv1a(text: str) -> int:
    found = 0xCBF29CE484222325
    for each in text.encode():
        found = (found ^ each) * 0x100000001B3 & (1 << 64) - 1
    return found


def _mount_namespace() -> int:
    number = bytearray(8)
    with open("/proc/self/ns/mnt", "rb") as file:  # noqa: PTH123 - for its number
        try:
            fcntl.ioctl(file, NS_GET_MNTNS_ID, number)
        except OSError:
            return os.fstat(file.fileno()).st_ino
    return int.from_bytes(number, sys.byteorder)


def _socket_and_key(program: Path) -> tuple[str, str]:
    shown = subprocess.run([program, "--warm-socket"], capture_output=True, text=True, check=True).stdout
    numbers = [Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("net", "pid", "user")]
    root, mount = Path("/").stat(), os.open("/", os.O_PATH)
    [mount_id] = re.findall(r"mnt_id:\t(\d+)", Path(f"/proc/self/fdinfo/{mount}").read_text())
    device = os.minor(root.st_dev) << 32 | os.major(root.st_dev)
    status = dict(
        line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    rights = [int(status[each], 16) for each in ("CapEff", "CapPrm", "CapInh", "NoNewPrivs")]
    groups = [os.getegid(), *(each for each in os.getgroups() if each != os.getegid())]
    key = [*numbers, _mount_namespace(), device, root.st_ino, int(mount_id), *rights, *groups]
    text = "".join(f"{each:x} " for each in key)
    return shown.strip(), f"{_fnv1a(text):016x}"


def test_the_server_key_is_as_documented(odd_bindir: Path, launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(odd_bindir) as host:
        shown, key = host.call(_socket_and_key, odd_bindir / "odd")
        assert shown == f"/run/pycni/warm/test-{key}.sock"

"""Launcher and worker speak one protocol: what the compiled launcher sends is what Python reads."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import executables
from cni.testing import Host, warm, why_no_namespaces
from cni.warm import protocol
from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = "".join(path.read_text() for path in sorted((ROOT / "build/launcher").glob("*.[ch]")))
TEXT = (ROOT / "build/launcher/protocol.md").read_text()

# What a launcher of build 1.2-abc sends when it is called as /x/bridge with two variables and umask 027.
GOLDEN = b"\0".join(
    [b"PYCNI-WARM 1 27", b"1.2-abc", b"bridge", b"/x/bridge", b"CNI_COMMAND=ADD", b"A=b=c\xff", b""]
)


def test_constants_are_the_same_on_both_sides() -> None:
    defined = dict(re.findall(r"^#define (\w+) +(.+)$", SOURCE, re.MULTILINE))
    assert defined["MAGIC"] == f'"{protocol.MAGIC}"'
    assert defined["PROTOCOL_VERSION"] == str(protocol.PROTOCOL_VERSION)
    assert eval(defined["MAX_REQUEST"]) == protocol.MAX_REQUEST  # noqa: S307 - a product of numbers
    for name in ("ACCEPTED", "GO", "STATUS"):
        assert defined[name] == f"'{getattr(protocol, name).decode()}'"
    assert defined["FOLDER"] == '"/run/pycni/warm"'
    assert f"{protocol.MAX_REQUEST} bytes" in TEXT
    assert f"{protocol.MAGIC} <protocol version, {protocol.PROTOCOL_VERSION}> <umask, octal>" in TEXT


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.settimeout(2)
        yield ours, theirs


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_call_is_read() -> None:
    with pair() as (launcher, worker):
        launcher.send(GOLDEN)
        call = protocol.receive(worker)
        assert call is not None
        assert call[:4] == ("1.2-abc", "bridge", "/x/bridge", 0o27)
        assert call.env() == {"CNI_COMMAND": "ADD", "A": "b=c\udcff"}


def test_the_first_variable_of_a_name_counts_and_nameless_ones_do_not() -> None:
    with pair() as (launcher, worker):
        launcher.send(b"PYCNI-WARM 1 22\0b\0n\0e\0X=1\0X=2\0=C:=x\0none\0EMPTY=\0")
        call = protocol.receive(worker)
        assert call is not None
        assert call.env() == {"X": "1", "EMPTY": ""}


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0",
        GOLDEN[:-1],
        GOLDEN[:20],
        b"PYCNI-WARM 2 27\0b\0n\0e\0",
        b"PYCNI-WARM 1 99\0b\0n\0e\0",
        b"PYCNI-WARM 1\0b\0n\0e\0",
        b"PYCNI-WARM 1 27\0b\0n\0",
        b"OTHER 1 27\0b\0n\0e\0",
        GOLDEN + b"A=" + b"x" * (protocol.MAX_REQUEST - len(GOLDEN)) + b"\0",
        os.urandom(500),
    ],
)
@pytest.mark.parametrize("number_of_files", [0, 1, 30])
def test_what_is_no_call_is_refused_and_nothing_stays_open(data: bytes, number_of_files: int) -> None:
    before = open_files()
    with pair() as (launcher, worker), open("/dev/null", "rb") as null:  # noqa: PTH123 - for its number
        socket.send_fds(launcher, [data], [null.fileno()] * number_of_files)
        with pytest.raises(protocol.ProtocolError):
            protocol.receive(worker)
    assert open_files() == before


@pytest.mark.parametrize("number_of_files", [0, 3, 5, 200])
def test_other_than_four_descriptors_are_refused_and_closed(number_of_files: int) -> None:
    before = open_files()
    with pair() as (launcher, worker), open("/dev/null", "rb") as null:  # noqa: PTH123 - for its number
        socket.send_fds(launcher, [protocol.GO], [null.fileno()] * number_of_files)
        with pytest.raises(protocol.ProtocolError):
            protocol.begin(worker)
    assert open_files() == before


def test_a_launcher_that_has_gone_is_no_call() -> None:
    with pair() as (launcher, worker):
        launcher.close()
        assert protocol.receive(worker) is None


class Listening:
    """A server in a test's hands at the socket that a launcher looks for."""

    def __init__(self, program: Path) -> None:
        path = subprocess.run([program, "--warm-socket"], capture_output=True, text=True, check=True).stdout
        self.path = path.strip()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(5)
        self._listener.bind(self.path)
        self._listener.listen()

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        return connection


def _golden(program: Path) -> tuple[bytes, bytes, list[str], int, str]:
    server = Listening(program)
    env = {b"CNI_COMMAND": b"ADD", b"A": b"b=c\xff"}
    os.umask(0o27)
    os.chdir("/usr")
    with open("/etc/hostname", "rb") as stdin:  # noqa: PTH123 - a file to hand over
        launcher = subprocess.Popen(
            [program], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        with server.accept() as connection:
            call = connection.recv(protocol.MAX_REQUEST)
            connection.send(protocol.ACCEPTED)
            go, fds, _, _ = socket.recv_fds(connection, 9, 9)
            names = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in fds]
            os.write(fds[1], b"answered")
            for fd in fds:
                os.close(fd)
            protocol.answer(connection, 7)
        out, _ = launcher.communicate(timeout=5)
    return call, go, names, launcher.returncode, out.decode()


def test_the_launcher_sends_what_is_written(launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(tmp_path) as host:
        warm.set_up(host.place)
        host.run(["mkdir", "/run/x"])
        program = executables.launcher(launcher.read_bytes(), "/nowhere", "1.2-abc")
        host.call(executables.put, Path("/run/x"), ["bridge"], program)
        call, go, names, status, out = host.call(_golden, Path("/run/x/bridge"))
        assert call == GOLDEN.replace(b"/x/", b"/run/x/")
        assert go == protocol.GO
        assert (names[0], names[3], len(names)) == ("/etc/hostname", "/usr", 4)
        assert (status, out) == (7, "answered")


def _fnv1a(text: str) -> int:
    found = 0xCBF29CE484222325
    for each in text.encode():
        found = (found ^ each) * 0x100000001B3 & (1 << 64) - 1
    return found


def _socket_and_key(program: Path) -> tuple[str, str]:
    shown = subprocess.run([program, "--warm-socket"], capture_output=True, text=True, check=True).stdout
    kinds = [Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in ("net", "mnt", "user", "pid")]
    root = Path("/").stat()
    status = dict(
        line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
    )
    rights = [int(status["CapEff"], 16), int(status["NoNewPrivs"]), int(status["Seccomp"])]
    text = " ".join(f"{each:x}" for each in [*kinds, root.st_dev, root.st_ino, *rights])
    return shown.strip(), f"{_fnv1a(text):016x}"


def test_the_key_is_as_written(odd_bindir: Path, launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(odd_bindir) as host:
        shown, key = host.call(_socket_and_key, odd_bindir / "odd")
        assert shown == f"/run/pycni/warm/test-{key}.sock"

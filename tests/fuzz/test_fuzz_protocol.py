"""Whatever is sent to a warm server: it closes the connection or answers, and serves the next caller."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import strategies as st

from cni.kernel import child
from cni.testing import Host, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.testing.place import BARE_ENV
from cni.warm import control
from plugin_table import declared, packages
from tests.fuzz.cases import Tried, cases
from tests.support import scene
from tests.support.subjects import PLUGINS
from tests.warm import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.conftest import Fuzz

BUILD = "test"
LOOPBACK = scene.LOOPBACK.encode()
_SILENT = 30
_REPLIES_WITHIN_S = 60


class Send(NamedTuple):
    """One message of a launcher that may be none."""

    data: bytes
    files: int = 0


HEADS = st.sampled_from([b"PYCNI-WARM 1 22", b"PYCNI-WARM 1 0", b"PYCNI-WARM 2 22", b"PYCNI-WARM 1 8", b"x"])
NAMES = st.sampled_from([*(name.encode() for name in PLUGINS), b"nothing", b"", b"../x", b"\xff"])
BUILDS = st.sampled_from([BUILD.encode()] * 4 + [b"other", b""])
VARIABLES = st.lists(
    st.sampled_from([b"CNI_COMMAND=VERSION", b"CNI_COMMAND=DEL", b"CNI_COMMAND=", b"=x", b"x", b"A=\xff"])
    | st.binary(max_size=20),
    max_size=4,
)
# A call as it should be, and one with parts of any kind.
CALL = b"\0".join(
    [b"PYCNI-WARM 1 22", BUILD.encode(), LOOPBACK, b"/x/" + LOOPBACK, b"CNI_COMMAND=VERSION", b""]
)
CALLS = st.builds(
    lambda head, build, name, variables: b"\0".join([head, build, name, b"/x/" + name, *variables, b""]),
    HEADS,
    BUILDS,
    NAMES,
    VARIABLES,
)
CUT = st.builds(lambda call, at: call[: at % (len(call) + 1)], CALLS, st.integers(0, 200))
LONG = st.integers(0, 1 << 18).map(lambda more: CALL + b"A=" + b"x" * more + b"\0")
DATA = st.one_of(st.just(CALL), CALLS, CUT, LONG, st.binary(max_size=50), st.just(wire.GO), st.just(b"GG"))
FILES = st.sampled_from([0, 0, 0, 5, 5, 5, 4, 6, 7, 250])
MESSAGES = st.lists(st.builds(Send, DATA, FILES), max_size=4)
# Most callers begin well.
CONVERSATIONS = MESSAGES | st.builds(
    lambda call, go, more: [Send(call), go, *more],
    st.just(CALL) | CALLS,
    st.just(Send(wire.GO, 5)) | st.builds(Send, DATA, FILES),
    MESSAGES,
)


class _Server:
    """The server that is tried, and how it was at first."""

    def __init__(self, bindir: Path) -> None:
        launcher = bindir / scene.LOOPBACK
        self._running = control.start(launcher)
        self._path = str(control.socket_of(launcher))
        self._launcher = launcher
        null = os.open("/dev/null", os.O_RDWR)
        # As a launcher sends them: three streams, a folder and the right to answer, here that of many calls.
        right = os.eventfd(1 << 30, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self._five = [null, null, null, os.open("/", os.O_PATH), right]
        self._files = self._open_files()
        self._cases = 0

    def _open_files(self) -> int:
        return len(list(Path(f"/proc/{self._running.pid}/fd").iterdir()))

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_REPLIES_WITHIN_S)
        connection.connect(self._path)
        return connection

    def talk(self, messages: list[Send]) -> bool:
        """Send all, say goodbye, read to the end; True if a call was run."""
        replies = b""
        with self.connect() as connection:
            for each in messages:
                try:
                    files = (self._five * each.files)[-each.files :] if each.files else []
                    socket.send_fds(connection, [each.data], files, socket.MSG_NOSIGNAL)
                except OSError:
                    # It has closed already, or the message is larger than any.
                    break
            try:
                connection.shutdown(socket.SHUT_WR)
                while reply := connection.recv(100):
                    replies += reply
            except ConnectionError:
                pass
        assert replies in {b"", wire.ACCEPTED} or (
            len(replies) == 3 and replies.startswith(wire.ACCEPTED + wire.STATUS)
        )
        self._cases += 1
        if self._cases % 25 == 0:
            self.check()
        return len(replies) == 3

    def check(self) -> None:
        """Fail unless the very same server serves a call, and holds no more files than it may."""
        env = BARE_ENV | {"CNI_COMMAND": "VERSION"}
        done = child.run([str(self._launcher)], env=env, timeout_s=60)
        assert (done.status, b"supportedVersions" in done.stdout) == (0, True)
        assert [each.pid for each in control.find()] == [self._running.pid]
        # A place for each worker there may be keeps a socket.
        assert self._open_files() <= self._files + 64
        assert "unexpected" not in Path("/run/pycni/warm/log").read_text()

    def check_at_rest(self) -> None:
        """Fail unless all workers come to wait again."""
        deadline = time.monotonic() + 60
        while control.status(self._running).get("busy") != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.check()


def _talk_to_server(bindir: Path, part: int) -> Tried:
    server = _Server(bindir)
    tried = cases(1, messages=CONVERSATIONS)(server.talk)(part=part)
    server.check_at_rest()
    return tried


def _be_silent(bindir: Path) -> None:
    server = _Server(bindir)
    silent = [server.connect() for _ in range(_SILENT)]
    server.check()
    for each in silent:
        each.close()
    server.check_at_rest()


@pytest.fixture
def warm_host(launcher: Path, tmp_path: Path) -> Iterator[Host]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(make_warm_bindir(tmp_path, packages(declared()), launcher, BUILD)) as host:
        warm.set_up(host.place)
        yield host


def test_a_server_outlives_all_that_is_sent(fuzz: Fuzz, warm_host: Host) -> None:
    fuzz.count(warm_host.call(_talk_to_server, warm_host.bindir, fuzz.part))


def test_silent_callers_keep_nobody_waiting(warm_host: Host) -> None:
    warm_host.call(_be_silent, warm_host.bindir)

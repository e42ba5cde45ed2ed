"""A client without permission is refused, and a malformed request harms no other call."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene
from tests.support.patience import LONG_S, wait_until
from tests.warm import peers, wire
from tests.warm.odd.cni_odd import unshare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.warm.conftest import WarmHost

pytestmark = pytest.mark.forked
CLONE_NEWUSER = 0x10000000
# A busy machine may delay a call for as long as a worker waits for a client.
TRIES = 5
CONF = '{"cniVersion": "1.0.0", "name": "n", "type": "odd"}'


def socket_of(host: WarmHost) -> str:
    return host.run([str(host.bindir / "odd"), "--warm-socket"]).strip()


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(LONG_S)
    connection.connect(path)
    return connection


def call_of(build: str = "test", name: str = scene.LOOPBACK) -> bytes:
    return f"PYCNI-WARM 1 22\0{build}\0{name}\0/x/{name}\0CNI_COMMAND=VERSION\0".encode()


def _send(path: str, data: bytes, number_of_files: int) -> bytes:
    with connected(path) as connection, Path("/dev/null").open("rb") as null:
        try:
            socket.send_fds(connection, [data], [null.fileno()] * number_of_files)
            return connection.recv(10)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def _begin(path: str, go: bytes, number_of_files: int) -> bytes:
    with connected(path) as connection, Path("/dev/null").open("rb") as null:
        connection.send(call_of())
        assert connection.recv(10) == wire.ACCEPTED
        socket.send_fds(connection, [go], [null.fileno()] * number_of_files)
        try:
            return connection.recv(10)
        except ConnectionResetError:
            return b""


def files_of(pids: list[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def test_malformed_data_is_refused_and_does_not_harm_the_server(warm_host: WarmHost) -> None:
    warm_host.odd()
    [server] = warm_host.call(control.find)
    path, whole = socket_of(warm_host), call_of()
    # While a worker looks for leaks of the call, the server has one more.
    wait_until(lambda: len(control.children(server.pid)) == 1)
    pids = [server.pid, *control.children(server.pid)]
    before = files_of(pids)
    garbage = [random.randbytes(random.randrange(1, 3000)) for _ in range(60)]  # noqa: S311 - any bytes will do
    cut = [whole[: random.randrange(1, len(whole) - 1)].rstrip(b"\0") for _ in range(30)]  # noqa: S311 - at any place
    for data in [*garbage, *cut, b"x" * 200_000, whole + b"A=" + b"x" * 170_000 + b"\0"]:
        assert warm_host.call(_send, path, data, random.choice([0, 4, 100])) == b""  # noqa: S311
    for go, number in [(b"x", 5), (wire.GO, 4), (wire.GO, 6), (wire.GO, 200), (b"GG", 5)]:
        assert warm_host.call(_begin, path, go, number) == b""
    # The worker closes what it has received after it has refused the call.
    wait_until(lambda: files_of(pids) <= before)
    wait_until(lambda: control.children(server.pid) == pids[1:])
    assert warm_host.odd().ok
    assert warm_host.servers() == [server.pid]
    assert warm_host.status()["requests"] == 2


def _hold(path: str, number: int, has_begun: int) -> None:
    held = [connected(path) for _ in range(number)]
    os.close(has_begun)
    signal.pause()
    assert held


@contextmanager
def silent_clients(host: WarmHost, number: int) -> Iterator[None]:
    """Connect clients that send nothing until the context ends."""
    path = socket_of(host)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            host.place.enter()
            _hold(path, number, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as begun:
        begun.read()
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_silent_clients_delay_no_call(warm_host: WarmHost) -> None:
    """The call is served before any worker has given up a client, which takes some seconds."""
    warm_host.odd()
    for _ in range(TRIES):
        begun = warm_host.log().count("refused a call")
        with silent_clients(warm_host, 20):
            assert warm_host.facts()["parent"] == str(warm_host.servers()[0])
            if warm_host.log().count("refused a call") == begun:
                return
        warm_host.await_idle()
    pytest.fail("the call waited until silent clients were refused")


def _as_user(path: str, uid: int) -> bytes:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    return _send(path, call_of(), 0)


def _in_user_namespace(path: str) -> bytes:
    unshare(CLONE_NEWUSER)
    with connected(path) as connection:
        return peers.ask(connection, call_of(), os.devnull, os.devnull)


def test_the_socket_refuses_another_user(warm_host: WarmHost) -> None:
    warm_host.odd()
    path = socket_of(warm_host)
    with pytest.raises(PermissionError):
        warm_host.call(_as_user, path, 65534)
    warm_host.run(["chmod", "0777", "/run/pycni", "/run/pycni/warm", path])
    assert warm_host.call(_as_user, path, 65534) == b""
    warm_host.await_log("refused a call: it is of user 65534")
    assert warm_host.call(_send, path, call_of(), 0) == wire.ACCEPTED


def test_the_socket_refuses_another_user_namespace(warm_host: WarmHost) -> None:
    warm_host.odd()
    assert warm_host.call(_in_user_namespace, socket_of(warm_host)) in {wire.REFUSED, b""}
    warm_host.await_log("refused a call")


def test_another_user_is_served_cold(warm_host: WarmHost) -> None:
    warm_host.odd()
    # The right to read, as the plugins may lie in a folder of root's; not that to use root's server.
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rights]
    env = BARE_ENV | {"CNI_COMMAND": "VERSION"}
    assert "1.1.0" in warm_host.run([*user, str(warm_host.bindir / scene.LOOPBACK)], env=env)
    assert warm_host.status()["requests"] == 1


CHROOT = """
mkdir /run/r && mount -t tmpfs tmpfs /run/r
for each in /*; do
    [ -d $each ] && mkdir /run/r$each && mount --rbind $each /run/r$each 2>/dev/null || true
    [ -L $each ] && rm -df /run/r$each && cp -P $each /run/r$each
done
exec chroot /run/r "$@"
"""

ELSEWHERE = {
    "network namespace": ["unshare", "--net"],
    "mount namespace": ["unshare", "--mount"],
    "user namespace": ["unshare", "--user", "--map-root-user"],
    "process ID namespace": ["unshare", "--pid", "--fork", "--mount-proc"],
    "root folder": ["sh", "-c", CHROOT, "sh"],
    "fewer rights": ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"],
    "no new rights": ["setpriv", "--no-new-privs"],
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_caller_in_other_namespaces_never_gets_the_server(warm_host: WarmHost, what: str) -> None:
    """The folder of sockets is the same one for both."""
    facts = warm_host.facts()
    env = BARE_ENV | {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "e", "CNI_PATH": "/o",
    }  # fmt: skip
    command = [*ELSEWHERE[what], str(warm_host.bindir / "odd")]
    for _ in range(2):
        place = warm_host.place.run(command, CONF, env=env, check=False)
        assert place.returncode == 0, place.stderr
        assert f'"parent": "{facts["parent"]}"' not in place.stderr
        command = command if what != "root folder" else ["chroot", "/run/r", command[-1]]
    assert warm_host.status_of(int(facts["parent"]))["requests"] == 1


def test_a_server_has_the_same_rights_as_its_callers(warm_host: WarmHost) -> None:
    """A server that was started by a caller with fewer rights serves no other callers."""
    env = BARE_ENV | {"CNI_COMMAND": "VERSION"}
    command = ["setpriv", "--bounding-set=-net_admin", str(warm_host.bindir / scene.LOOPBACK)]
    warm_host.run(command, env=env)
    sandbox = warm_host.sandbox("c1")
    conf = {"cniVersion": "1.0.0", "name": "lo", "type": scene.LOOPBACK}
    assert warm_host.plugin(scene.LOOPBACK, "ADD", conf, netns=sandbox).ok
    assert len(warm_host.servers()) == 2


LISTER = """#!/bin/sh
ls -l /proc/self/fd > /run/files.$CNI_COMMAND
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.22.0.2/24"}]}'
"""


def test_children_of_a_call_get_no_descriptor_of_the_worker(warm_host: WarmHost, tmp_path: Path) -> None:
    (tmp_path / "lister").write_text(LISTER)
    (tmp_path / "lister").chmod(0o755)
    conf = {"cniVersion": "1.0.0", "name": "n", "type": scene.INTERFACE, "ipam": {"type": "lister"}}
    env = {"CNI_PATH": f"{warm_host.bindir}:{tmp_path}"}
    sandbox = warm_host.sandbox("c1")
    for verb in ("ADD", "DEL"):
        warm_host.plugin(scene.INTERFACE, verb, conf, netns=sandbox, env=env).must()
        listed = warm_host.run(["cat", f"/run/files.{verb}"])
        files = dict(re.findall(r"(\d+) -> (\S+)$", listed, re.MULTILINE))
        # Its own streams, what it writes to, and what it reads for that.
        assert set(files) == {"0", "1", "2", "3"}
        assert files["1"] == f"/run/files.{verb}"
        assert re.fullmatch(r"/proc/\d+/fd", files["3"])
    assert warm_host.status()["requests"] == 2

"""The worker compares the rights of its caller with its own: the socket's name is no barrier."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing import why_no_namespaces
from cni.warm import connection, control
from tests.support import scene
from tests.support.patience import LONG_S
from tests.warm import peers, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.warm.conftest import WarmHost

pytestmark = pytest.mark.forked
VERSION = peers.call_of(scene.LOOPBACK, {"CNI_COMMAND": "VERSION"})
STDIN = "/dev/null"


def socket_of(host: WarmHost) -> str:
    return host.run([str(host.bindir / "odd"), "--warm-socket"]).strip()


def _call(path: str, output: str) -> bytes:
    with peers.connect(path) as accepted:
        return peers.ask(accepted, VERSION, STDIN, output)


def _called_by(change: Callable[[], None], path: str, output: str) -> bytes:
    """Become another caller, and call."""
    change()
    return peers.in_child(partial(_call, path, output))


def _without_group() -> None:
    os.setresgid(4242, 4242, 4242)


OTHERS: dict[str, tuple[Callable[[], None], str]] = {
    **{f"{kind} namespace": (partial(peers.unshare, kind), f"ns/{kind}") for kind in peers.CLONE},
    "root directory": (peers.chroot, "root"),
    "effective capabilities": (peers.drop_effective, "CapEff"),
    "permitted capabilities": (peers.drop_permitted, "CapPrm"),
    "inheritable capabilities": (peers.add_inheritable, "CapInh"),
    "bounding set": (peers.drop_bounding, "CapBnd"),
    "ambient capabilities": (peers.add_ambient, "CapInh"),
    "no_new_privs": (peers.set_no_new_privs, "NoNewPrivs"),
    "filter of seccomp": (peers.set_filter, "Seccomp"),
    "supplementary groups": (partial(os.setgroups, [4242]), "Groups"),
    "group": (_without_group, "user"),
    "real group": (partial(os.setresgid, 4242, 0, 0), "Gid"),
    "saved user": (partial(os.setresuid, 0, 0, 65534), "Uid"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_process_with_fewer_rights_is_not_served(warm_host: WarmHost, tmp_path: Path, what: str) -> None:
    """The process sees the socket and may connect, whatever the socket's name is."""
    warm_host.odd()
    path, output = socket_of(warm_host), tmp_path / "told"
    output.touch()
    assert warm_host.call(_call, path, str(output)) == wire.STATUS + b"\0"
    assert "1.1.0" in output.read_text()
    output.write_text("")
    change, difference = OTHERS[what]
    assert warm_host.call(_called_by, change, path, str(output)) in {wire.REFUSED, b""}
    assert output.read_text() == ""
    warm_host.await_log(f"whose {difference} is not that of the worker")
    assert warm_host.status()["requests"] == 2
    assert warm_host.odd().ok


EVIL = """#!/bin/sh
grep CapEff /proc/self/status > /run/evil-ran
echo '{}'
"""
EVIL_CONF = {"cniVersion": "1.1.0", "name": "n", "type": scene.INTERFACE, "ipam": {"type": "evil"}}


def _attack(path: str) -> bytes:
    peers.be_confined()
    variables = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/run/evil"}

    def call() -> bytes:
        with peers.connect(path) as accepted:
            return peers.ask(
                accepted, peers.call_of(scene.INTERFACE, variables), "/run/evil/conf", "/dev/null"
            )

    return peers.in_child(call)


def _prepare(folder: str) -> None:
    Path(folder).mkdir()
    (Path(folder) / "evil").write_text(EVIL)
    (Path(folder) / "evil").chmod(0o755)
    (Path(folder) / "conf").write_text(json.dumps(EVIL_CONF))


def test_a_container_of_root_that_sees_the_socket_runs_nothing(warm_host: WarmHost) -> None:
    """The container has no capabilities, other namespaces, and the folder of sockets read-only."""
    warm_host.odd()
    warm_host.call(_prepare, "/run/evil")
    # A worker that closes before it has read the call resets the connection.
    assert warm_host.call(_attack, socket_of(warm_host)) in {wire.REFUSED, b""}
    warm_host.await_log("is not that of the worker")
    assert not Path(f"/proc/{warm_host.pid}/root/run/evil-ran").exists()


def _silent(path: str) -> bytes:
    peers.be_confined()

    def wait() -> bytes:
        with peers.connect(path) as accepted:
            accepted.settimeout(LONG_S)
            return accepted.recv(10)

    return peers.in_child(wait)


def test_a_process_with_fewer_rights_blocks_no_worker(warm_host: WarmHost) -> None:
    """The process sends nothing. A worker waits some seconds for an equal process."""
    warm_host.odd()
    assert warm_host.call(_silent, socket_of(warm_host)) == wire.REFUSED
    warm_host.await_log("whose ns/net is not that of the worker")


def _dropping_after_connecting(path: str, output: str) -> bytes:
    with peers.connect(path) as accepted:
        peers.drop_all()
        return peers.ask(accepted, VERSION, STDIN, output)


def _root_after_connecting(path: str, output: str) -> bytes:
    os.seteuid(65534)
    accepted = peers.connect(path)
    os.seteuid(0)
    with accepted:
        return peers.ask(accepted, VERSION, STDIN, output)


def _connected_by_child(path: str) -> tuple[int, socket.socket]:
    """Let a child connect and end. Return its process ID and the accepted connection."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            with peers.connect(path) as connected:
                socket.send_fds(theirs, [b"x"], [connected.fileno()])
        finally:
            os._exit(0)
    theirs.close()
    _, [fd], _, _ = socket.recv_fds(ours, 1, 1)
    os.waitpid(child, 0)
    accepted = socket.socket(fileno=fd)
    accepted.settimeout(LONG_S)
    return child, accepted


def _handed_on(path: str, output: str) -> bytes:
    """Call over a connection of an equal process that has ended."""
    _, accepted = _connected_by_child(path)
    with accepted:
        return peers.ask(accepted, VERSION, STDIN, output)


@pytest.mark.parametrize("attack", [_dropping_after_connecting, _root_after_connecting, _handed_on])
def test_the_credentials_at_connect_and_the_current_ones_must_match(
    warm_host: WarmHost, tmp_path: Path, attack: Callable[[str, str], bytes]
) -> None:
    warm_host.odd()
    path = socket_of(warm_host)
    warm_host.run(["chmod", "0777", "/run/pycni", "/run/pycni/warm", path])
    (tmp_path / "told").touch()
    assert warm_host.call(attack, path, str(tmp_path / "told")) in {wire.REFUSED, b""}
    assert (tmp_path / "told").read_text() == ""
    warm_host.await_log("refused a call")


def _reused_number(library: Path, folder: Path) -> str:
    """Accept a call as process 1 of a new namespace. Return why the call was refused."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen()
    listener.settimeout(0)
    ours = connection.Connection(connection.load(library), listener.fileno(), "test")
    first, accepted = _connected_by_child(str(folder / "socket"))
    accepted.send(VERSION)
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(first - 1))
    second = os.fork()
    if second == 0:
        # It ends with process 1.
        signal.pause()
    assert second == first
    try:
        ours.read(ours.accept())
        ours.adopt_context(1)
    except connection.RefusedError as error:
        return str(error)
    return "served"


def test_a_process_that_reuses_the_callers_pid_is_not_served(launcher: Path, tmp_path: Path) -> None:
    """The caller has ended. The process that reuses its ID has the worker's rights."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    library = launcher.with_name(connection.FILE)

    def in_new_namespace() -> bytes:
        peers.mount_proc()
        return _reused_number(library, tmp_path).encode()

    def outside() -> bytes:
        peers.unshare("mnt", "pid")
        return peers.in_child(in_new_namespace)

    why = peers.in_child(outside).decode()
    assert "whose process is not that of the worker" in why


def test_a_caller_under_a_filter_is_served_cold(warm_host: WarmHost) -> None:
    """Two filters have one mode: a server of another caller would not have this caller's filter."""
    facts = warm_host.facts()
    told = warm_host.call(_version_under_filter, str(warm_host.bindir / scene.LOOPBACK))
    assert "1.1.0" in told
    assert warm_host.status_of(int(facts["parent"]))["requests"] == 1
    assert warm_host.servers() == [int(facts["parent"])]


def _version_under_filter(program: str) -> str:
    peers.set_filter()
    return subprocess.run([program], env={"CNI_COMMAND": "VERSION"}, check=True, stdout=-1, text=True).stdout


GROUPS = {"its own group": [0], "none": []}


@pytest.mark.parametrize("what", GROUPS)
def test_a_login_and_an_init_system_share_a_server(warm_host: WarmHost, what: str) -> None:
    """A login adds the group itself to the supplementary ones, which changes no right."""
    warm_host.odd()
    groups = ",".join(map(str, GROUPS[what]))
    option = [f"--groups={groups}"] if groups else ["--clear-groups"]
    env = {"CNI_COMMAND": "VERSION"}
    warm_host.run(["setpriv", *option, str(warm_host.bindir / scene.LOOPBACK)], env=env)
    assert warm_host.status()["requests"] == 2
    assert "refused" not in warm_host.log()


@pytest.mark.parametrize("groups", ["4242", "4242,4243"])
def test_callers_with_other_groups_have_a_server_of_their_own(warm_host: WarmHost, groups: str) -> None:
    warm_host.odd()
    [first] = warm_host.servers()
    env = {"CNI_COMMAND": "VERSION"}
    warm_host.run(["setpriv", f"--groups={groups}", str(warm_host.bindir / scene.LOOPBACK)], env=env)
    [second] = set(warm_host.servers()) - {first}
    lines = Path(f"/proc/{second}/status").read_text().splitlines()
    assert next(line for line in lines if line.startswith("Groups:")).split()[1:] == groups.split(",")
    for server in warm_host.call(control.find):
        assert warm_host.call(control.status, server)["requests"] == 1

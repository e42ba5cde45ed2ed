"""An obstacle costs a call a bounded wait at most, and no caller waits for its pipes to end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.state import executables
from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.warm.conftest import WarmHost

pytestmark = pytest.mark.forked
BRIDGE = {
    "cniVersion": "1.0.0", "name": "n", "type": scene.INTERFACE, "isGateway": True, "ipMasq": True,
    "ipMasqBackend": "nftables", "ipam": {"type": scene.IPAM, "subnet": "10.22.0.0/16"},
}  # fmt: skip
HIGH_FD = 200


def socket_of(host: WarmHost) -> str:
    return host.run([str(host.bindir / "odd"), "--warm-socket"]).strip()


def is_cold(host: WarmHost, **more: Any) -> bool:
    return int(host.facts(**more)["parent"]) not in host.servers()


def await_warm(host: WarmHost) -> None:
    """Call until a worker serves a call: then the kernel shows that the server has run again."""
    wait_until(lambda: not is_cold(host))


def test_a_call_waits_some_seconds_for_a_stopped_holder_of_the_lock(warm_host: WarmHost) -> None:
    lock = f"{socket_of(warm_host)}.lock"
    script = f"exec 9>{lock}; flock 9; echo has it; kill -STOP $$"
    holder = warm_host.place.popen(["sh", "-c", script])
    assert holder.stdout
    assert holder.stdout.readline() == "has it\n"
    assert is_cold(warm_host)
    assert warm_host.servers() == []
    holder.kill()
    holder.communicate()
    assert not is_cold(warm_host)


def test_a_stopped_server_serves_with_the_workers_that_it_has(warm_host: WarmHost) -> None:
    """Later calls run cold. When the server continues, it serves calls again."""
    warm_host.settings(workers=1, calls=1)
    warm_host.odd()
    [server] = warm_host.call(control.find)
    wait_until(lambda: len(control.children(server.pid)) == 1)
    os.kill(server.pid, signal.SIGSTOP)
    assert not is_cold(warm_host)
    assert is_cold(warm_host, env={"PYCNI_WARM_ACCEPT_S": "1"})
    os.kill(server.pid, signal.SIGCONT)
    await_warm(warm_host)
    assert warm_host.servers() == [server.pid]


STARTS = {"ends": "exit 1", "hangs": "exec sleep 5", "cannot be executed": "exec /nowhere"}


@pytest.mark.parametrize("what", STARTS)
def test_a_call_runs_cold_if_the_server_does_not_start(
    warm_host: WarmHost, launcher: Path, tmp_path: Path, what: str
) -> None:
    """Each call tries again, and runs cold."""
    real = warm_host.bindir.parent / "pycni"
    script = f'#!/bin/sh\n[ "$1" != --warm-server ] || {STARTS[what]}\nexec {real} "$@"\n'
    (tmp_path / "pycni").write_text(script)
    (tmp_path / "pycni").chmod(0o755)
    program = executables.launcher(launcher.read_bytes(), str(tmp_path), "odd")
    executables.put(tmp_path, ["odd"], program)
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "odd"}
    for _ in range(2):
        env = {"PYCNI_WARM_ACCEPT_S": "1"}
        answer = warm_host.plugin("odd", "ADD", conf, netns="/n", bindir=tmp_path, env=env)
        assert answer.ok, answer
    assert warm_host.servers() == []


@pytest.mark.parametrize("suffix", [".sock.lock", ".status", "log"])
@pytest.mark.parametrize("target", ["/run/target", "/run/nowhere"])
def test_a_planted_link_is_not_followed(warm_host: WarmHost, suffix: str, target: str) -> None:
    path = socket_of(warm_host).removesuffix(".sock") + suffix if suffix != "log" else "/run/pycni/warm/log"
    warm_host.run(["sh", "-c", f"echo mine > /run/target; ln -s {target} {path}"])
    # Without a lock of its own there is no server; the others are done without.
    assert is_cold(warm_host) == (suffix == ".sock.lock")
    assert warm_host.odd().ok
    assert warm_host.run(["cat", "/run/target"]) == "mine\n"
    assert not Path(f"/proc/{warm_host.pid}/root/run/nowhere").exists()


def test_a_foreign_folder_in_place_of_the_status_is_left_alone(warm_host: WarmHost) -> None:
    path = socket_of(warm_host).removesuffix(".sock") + ".status"
    warm_host.run(["mkdir", "-p", f"{path}/mine"])
    assert is_cold(warm_host)
    assert warm_host.run(["ls", path]) == "mine\n"


@pytest.mark.parametrize("files", [20, 60])
def test_an_add_with_few_descriptors_succeeds(warm_host: WarmHost, files: int) -> None:
    """The call runs in a process that the limit binds."""
    sandbox = warm_host.sandbox("c1")
    (Path(f"/proc/{warm_host.pid}/root/run/limited")).mkdir()
    script = f'#!/bin/sh\nulimit -n {files}\nexec {warm_host.bindir}/{scene.INTERFACE} "$@"\n'
    wrapper = Path(f"/proc/{warm_host.pid}/root/run/limited") / scene.INTERFACE
    wrapper.write_text(script)
    wrapper.chmod(0o755)
    env = {"CNI_PATH": str(warm_host.bindir)}
    for verb in ("ADD", "DEL"):
        warm_host.plugin(
            scene.INTERFACE, verb, BRIDGE, netns=sandbox, bindir=Path("/run/limited"), env=env
        ).must()
    assert warm_host.servers() == []


def pipes(stack: ExitStack, number: int) -> Iterator[tuple[int, int]]:
    for _ in range(number):
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        yield reader, writer


def ends(reader: int) -> bool:
    """Return whether a pipe comes to its end, whatever is in it, within some seconds."""
    os.set_blocking(reader, False)
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        try:
            if not os.read(reader, 1 << 16):
                return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


@pytest.mark.parametrize("is_first", [True, False], ids=["starts the server", "is served"])
def test_the_callers_pipes_end_with_the_plugin(warm_host: WarmHost, *, is_first: bool) -> None:
    """The test covers the three streams and one more descriptor with a number that no program uses."""
    if not is_first:
        warm_host.odd()
    with ExitStack() as stack:
        (stdin_out, stdin_in), *outputs = pipes(stack, 4)
        stack.callback(os.close, stdin_in)
        (_, stdout), (_, stderr), (_, extra) = outputs
        high = fcntl.fcntl(extra, fcntl.F_DUPFD, HIGH_FD)
        space = [f"--net=/proc/{warm_host.pid}/ns/net", f"--mount=/proc/{warm_host.pid}/ns/mnt"]
        process = subprocess.Popen(
            ["/usr/bin/nsenter", *space, str(warm_host.bindir / "odd")],
            stdin=stdin_out,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[high],
            env=BARE_ENV | {"CNI_COMMAND": "VERSION"},
        )
        for fd in (stdout, stderr, extra, high):
            os.close(fd)
        assert process.wait(timeout=LONG_S) == 0
        assert all(ends(reader) for reader, _ in outputs)
        # Nobody reads it any more, where this process gives up its own end.
        with Path(os.devnull).open("rb") as null:
            os.dup2(null.fileno(), stdin_out, inheritable=False)
        with pytest.raises(BrokenPipeError):
            os.write(stdin_in, b"x")
    assert warm_host.status()["requests"] == 2 - is_first

"""Cold calls without the start of Python: each call is a process of its own, forked when imports are done.

The start of Python with pydantic takes 0.1 s of CPU for each call, more than all that a call does. A zygote
is a process that has imported the plugins as a cold call does, and forks for each call. The child enters the
host's namespaces, takes the call's environment and streams, and goes on as the plugin's executable would.
Tests of the start itself, and those that signal a plugin, call the executable.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from cni.testing.place import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cni.testing.place import Place

# Imports nothing but what a cold call imports, so that calls find the same modules.
_PROGRAM = """
import ctypes, importlib, json, os, socket, sys
sys.path[:0] = {paths!r}
from cni.multicall import main
table = json.load(open({table!r}))
for package in table.values():
    importlib.import_module(package)
libc = ctypes.CDLL(None)
server = socket.socket(fileno=0)
while True:
    message, fds, _, _ = socket.recv_fds(server, 1 << 20, 5)
    if not message:
        os._exit(0)
    path, env = json.loads(message)
    child = os.fork()
    if child == 0:
        if libc.setns(fds[0], 0) or libc.setns(fds[1], 0):
            os._exit(99)
        os.chdir("/")
        for number in range(3):
            os.dup2(fds[2 + number], number)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = [path]
        main(path, {table!r})
    for fd in fds:
        os.close(fd)
    server.send(json.dumps(child).encode())
    _, status, used = os.wait4(child, 0)
    server.send(json.dumps([status, used.ru_utime + used.ru_stime]).encode())
"""
_LARGEST = 64 << 10


class Zygote:
    """A zygote for the plugins in a folder of `make_bindir`. Close it, or use it as a context."""

    # CPU seconds of the calls of running zygotes: the test process has not waited for their processes.
    cpu_s = 0.0

    def __init__(self, bindir: Path) -> None:
        self.bindir = bindir
        self._pid = os.getpid()
        self._cpu_s = 0.0
        self._lock = threading.Lock()
        self._client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [path for path in sys.path if path and os.path.isdir(path)]  # noqa: PTH112 - as in executables
        program = _PROGRAM.format(paths=paths, table=str(bindir.parent / "plugins.json"))
        interpreter = os.path.realpath(sys.executable)
        with server:
            self._process = subprocess.Popen(
                [interpreter, "-IS", "-c", program], stdin=server.fileno(), cwd="/", env={}
            )

    def close(self) -> None:
        """End the zygote."""
        self._client.close()
        self._process.wait()
        # Now the calls count among the children.
        Zygote.cpu_s -= self._cpu_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, place: Place, path: Path, stdin: str, env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str] | None:
        """Call a plugin; None if the caller must start the executable itself.

        That is so while another thread calls, in a child of the test process, and for a missing file.
        """
        message = json.dumps([str(path), dict(env)]).encode()
        is_fit = path.parent == self.bindir and os.access(path, os.X_OK) and not place.own_user
        if not is_fit or len(message) > _LARGEST or os.getpid() != self._pid:
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(place, message, stdin, timeout_s)
        finally:
            self._lock.release()

    def _run(
        self, place: Place, message: bytes, stdin: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        namespaces = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in place.namespaces]
        pipes = [os.pipe() for _ in range(3)]
        theirs = [*namespaces, pipes[0][0], pipes[1][1], pipes[2][1]]
        try:
            socket.send_fds(self._client, [message], theirs)
            child = json.loads(self._client.recv(_LARGEST))
        finally:
            for fd in theirs:
                os.close(fd)
        try:
            outputs = _communicate((pipes[0][1], pipes[1][0], pipes[2][0]), stdin.encode(), timeout_s)
        except subprocess.TimeoutExpired:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            status, cpu_s = json.loads(self._client.recv(_LARGEST))
            self._cpu_s += cpu_s
            Zygote.cpu_s += cpu_s
        # As subprocess does with text.
        stdout, stderr = (output.decode().replace("\r\n", "\n") for output in outputs)
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), stdout, stderr)


def _communicate(fds: tuple[int, int, int], stdin: bytes, timeout_s: float) -> list[bytes]:
    """Write to the first pipe, read the other two to their ends, and return what they had. Closes all."""
    deadline = time.monotonic() + timeout_s * SLOWNESS
    outputs = dict.fromkeys(fds[1:], b"")
    open_fds = set(fds)
    os.set_blocking(fds[0], False)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(fds[0], selectors.EVENT_WRITE)
            for fd in outputs:
                selector.register(fd, selectors.EVENT_READ)
            while open_fds:
                if (left := deadline - time.monotonic()) <= 0:
                    raise subprocess.TimeoutExpired([], timeout_s)
                for fd in [key.fd for key, _ in selector.select(left)]:
                    if fd in outputs:
                        data = os.read(fd, 1 << 16)
                        outputs[fd] += data
                    else:
                        data = stdin = _write(fd, stdin)
                    if not data:
                        selector.unregister(fd)
                        open_fds.remove(fd)
                        os.close(fd)
    finally:
        for fd in open_fds:
            os.close(fd)
    return list(outputs.values())


def _write(pipe: int, data: bytes) -> bytes:
    """Write what the pipe takes now, and return the rest: nothing when the reader has gone."""
    try:
        return data[os.write(pipe, data) :] if data else b""
    except BrokenPipeError:
        return b""

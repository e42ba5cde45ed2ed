"""Cold calls without the start of Python: each call is a process of its own, forked when imports are done.

The start of Python with pydantic takes 0.1 s of CPU for each call, more than all that a call does. A zygote
is a process that has imported the plugins as a cold call does, and forks for each call. The child enters the
host's namespaces, takes the call's environment and streams, and goes on as the plugin's executable would.
Tests of the start itself, and those that signal a plugin, call the executable.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from cni.testing.faults import ARMING
from cni.testing.place import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cni.testing.place import Place

# The code of `start` for the plugins of a table.
# Imports the plugins' modules, and so nothing but what a cold call imports: a call finds the same modules.
START_OF_PLUGINS = """
from pathlib import Path
{arming}from cni.multicall import main
from cni.skel import keep_pydantic_alone
keep_pydantic_alone()
table = json.load(open({table!r}))
for package in table.values():
    module = importlib.import_module(package)
    for path in (path for folder in getattr(module, "__path__", ()) for path in Path(folder).glob("*.py")):
        if not path.stem.startswith("__"):
            importlib.import_module(f"{{package}}.{{path.stem}}")
def start(path):
    main(path, {table!r})
"""
_PROGRAM = """
import ctypes, gc, importlib, json, os, socket, sys
sys.path[:0] = {paths!r}
gc.disable()
{start}
gc.freeze()
gc.enable()
libc = ctypes.CDLL(None)
server = socket.socket(fileno=0)
while True:
    message, fds, _, _ = socket.recv_fds(server, 1 << 20, 5)
    if not message:
        os._exit(0)
    if len(fds) == 1:
        # A copy of this process serves another thread of the test.
        if os.fork() == 0:
            os.dup2(fds[0], 0)
        os.close(fds[0])
        continue
    argv, env = json.loads(message)
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
        sys.argv = argv
        start(argv[0])
    for fd in fds:
        os.close(fd)
    server.send(json.dumps(child).encode())
    _, status, used = os.wait4(child, 0)
    server.send(json.dumps([status, used.ru_utime + used.ru_stime]).encode())
"""
_LARGEST = 64 << 10


class Zygote:
    """A zygote for the plugins in a folder of `make_bindir`. Close it, or use it as a context.

    In a folder of `make_warm_bindir` it makes the calls that PYCNI_WARM=off makes cold, with their faults.
    Without `bindir`, `start` is the code of another program: it imports all that the program needs, and
    defines `start(path)`.
    """

    # CPU seconds of the calls of all zygotes: the test process does not wait for their processes.
    cpu_s = 0.0

    def __init__(self, bindir: Path | None, start: str = "") -> None:
        self.bindir = bindir
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # A process serves one call at a time: each call takes one, and returns it.
        self._idle: list[socket.socket] = []
        self._first, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [path for path in sys.path if path and os.path.isdir(path)]  # noqa: PTH112 - as in executables
        self._is_of_launchers = bindir is not None and (bindir.parent / "pycni").exists()
        if bindir:
            is_armed = self._is_of_launchers and ARMING in (bindir.parent / "pycni").read_text()
            table, arming = str(bindir.parent / "plugins.json"), ARMING if is_armed else ""
            start = START_OF_PLUGINS.format(table=table, arming=arming)
        program = _PROGRAM.format(paths=paths, start=start)
        interpreter = os.path.realpath(sys.executable)
        with server:
            self._process = subprocess.Popen(
                [interpreter, "-IS", "-c", program], stdin=server.fileno(), cwd="/", env={}
            )

    def close(self) -> None:
        """End the zygote."""
        for client in (*self._idle, self._first):
            client.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(  # noqa: PLR0913, PLR0917 - what makes up a call
        self,
        place: Place,
        path: Path,
        stdin: str,
        env: Mapping[str, str],
        timeout_s: float,
        arguments: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str] | None:
        """Call a plugin; None if the caller must start the executable itself, as by `start`."""
        call = self.start(place, path, stdin, env, arguments)
        return call.finish(timeout_s) if call else None

    def start(  # noqa: PLR0913, PLR0917 - what makes up a call
        self,
        place: Place,
        path: Path,
        stdin: str,
        env: Mapping[str, str],
        arguments: Sequence[str] = (),
        stdout: str = "",
    ) -> ForkedCall | None:
        """Start a call of a plugin; None if the caller must start the executable itself.

        That is so in a child of the test process, and for a missing file. `stdout` is a file to write to.
        """
        message = json.dumps([[str(path), *arguments], dict(env)]).encode()
        is_fit = (
            path.parent == (self.bindir or path.parent) and os.access(path, os.X_OK) and not place.own_user
        )
        is_fit = is_fit and (not self._is_of_launchers or env.get("PYCNI_WARM") == "off")
        if not is_fit or len(message) > _LARGEST or os.getpid() != self._pid:
            return None
        return ForkedCall(self, place, message, stdin.encode(), stdout)

    def take(self) -> socket.socket:
        """Return the socket of a process that serves no call."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with server:
                socket.send_fds(self._first, [b"copy"], [server.fileno()])
            return client

    def put_back(self, client: socket.socket, cpu_s: float) -> None:
        """Return the socket of a process whose call has ended, and count the call's CPU seconds."""
        with self._lock:
            Zygote.cpu_s += cpu_s
            self._idle.append(client)


class ForkedCall:
    """A call that a zygote has forked; `pid` is its process. Use it as a context, or call `finish`."""

    def __init__(self, zygote: Zygote, place: Place, message: bytes, stdin: bytes, stdout: str = "") -> None:
        self._zygote = zygote
        self._client = zygote.take()
        namespaces = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in place.namespaces]
        pipes = [os.pipe() for _ in range(3)]
        if stdout:
            # The reader of the pipe sees its end at once.
            file = os.open(stdout, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(file, pipes[1][1], inheritable=False)
            os.close(file)
        theirs = [*namespaces, pipes[0][0], pipes[1][1], pipes[2][1]]
        self._pipes = pipes[0][1], pipes[1][0], pipes[2][0]
        os.set_blocking(self._pipes[0], False)
        try:
            socket.send_fds(self._client, [message], theirs)
            self.pid: int = json.loads(self._client.recv(_LARGEST))
        finally:
            for fd in theirs:
                os.close(fd)
        # A call that a test stops has read its input.
        self._stdin = _write(self._pipes[0], stdin)
        if not self._stdin:
            os.close(self._pipes[0])
        self._is_finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the call if it was not waited for: its zygote waits for it."""
        if not self._is_finished:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.finish(timeout_s=60)

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return bool(select.select([self._client], [], [], 0)[0])

    def finish(self, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end of the call. Raise TimeoutExpired, and kill it, if that takes too long."""
        try:
            outputs = _communicate(self._pipes, self._stdin, timeout_s)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            self._is_finished = True
            status, cpu_s = json.loads(self._client.recv(_LARGEST))
            self._zygote.put_back(self._client, cpu_s)
        # As subprocess does with text.
        stdout, stderr = (output.decode().replace("\r\n", "\n") for output in outputs)
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), stdout, stderr)


def _communicate(fds: tuple[int, int, int], stdin: bytes, timeout_s: float) -> list[bytes]:
    """Write to the first pipe, read the other two to their ends, and return their content. Closes all.

    Without input the first pipe is closed already.
    """
    deadline = time.monotonic() + timeout_s * SLOWNESS
    outputs = dict.fromkeys(fds[1:], b"")
    open_fds = set(fds if stdin else fds[1:])
    try:
        with selectors.DefaultSelector() as selector:
            if stdin:
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

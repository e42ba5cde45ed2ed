"""Warm servers without the start of Python: each is forked from a process that has imported the plugins.

The first call on a test's host starts a server of its own, and its imports take 0.3 s of CPU, more than all
calls of most tests. The launcher executes the suite's program as usual. The program's first lines pass the
server's arguments and its listening socket to the zygote, which forks. The child enters the namespaces of the
program and goes on as the server would. Tests of the start itself use executables without a zygote.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from cni.program.entry import SERVER_OPTION
from cni.testing.faults import ARMING

if TYPE_CHECKING:
    from pathlib import Path

_SOCKET = "servers.sock"

# What the program does before all else. Without an answer from the zygote it starts the server itself.
_ASK = """\
import sys
if sys.argv[1:2] == [{option!r}]:
    import _socket, os
    try:
        zygote = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        zygote.connect({path!r})
        fds = (3).to_bytes(4, sys.byteorder)
        zygote.sendmsg(["\\0".join(sys.argv[2:]).encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        if zygote.recv(1):
            os._exit(0)
    except OSError:
        pass
    zygote.close()
    del zygote
"""

# The option is in its command line, by which tests find servers.
_PROGRAM = """
import ctypes, json, os, resource, select, signal, socket, struct, sys
from pathlib import Path
sys.path[:0] = {paths!r}
table_file = Path({table!r})
{arming}from cni.warm import server
from cni.warm.preload import preload
preload(json.loads(table_file.read_text()).values())
libc = ctypes.CDLL(None)
RIGHTS = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cap")

def rights(pid):
    lines = Path(f"/proc/{{pid}}/status").read_text().splitlines()
    links = [os.readlink(f"/proc/{{pid}}/ns/{{kind}}") for kind in ("user", "pid", "cgroup", "ipc", "uts")]
    return [line for line in lines if line.startswith(RIGHTS)], links

def become_server(connection):
    message, fds, _, _ = socket.recv_fds(connection, 1 << 12, 1)
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if rights(pid) != rights("self"):
        return
    root = os.stat(f"/proc/{{pid}}/root")
    for namespace in [os.open(f"/proc/{{pid}}/ns/{{kind}}", os.O_RDONLY) for kind in ("net", "mnt")]:
        if libc.setns(namespace, 0):
            return
    os.chdir("/")
    if not os.path.samestat(root, os.stat("/")):
        return
    os.setsid()
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection.send(b"1")
    listener = os.dup(fds[0])
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.dup2(listener, 3)
    connection.detach()
    door.detach()
    os.closerange(4, 1024)
    path, build = message.decode().split("\\0")
    server.main(Path(path), build, table_file)

door = socket.socket(fileno=int(sys.argv[2]))
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK):
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (hard, hard))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    ready, _, _ = select.select([0, door], [], [])
    if 0 in ready:
        os._exit(0)
    connection, _ = door.accept()
    if os.fork() == 0:
        try:
            become_server(connection)
        finally:
            os._exit(99)
    connection.close()
"""


class ServerZygote:
    """A zygote for the servers of a folder of `make_warm_bindir`. Close it, or use it as a context."""

    def __init__(self, bindir: Path) -> None:
        self.bindir = bindir
        folder = bindir.parent
        entry = folder / "pycni"
        first, rest = entry.read_text().split("\n", 1)
        paths = [path for path in sys.path if path and os.path.isdir(path)]  # noqa: PTH112 - as in executables
        arming = ARMING if ARMING in rest else ""
        program = _PROGRAM.format(paths=paths, table=str(folder / "plugins.json"), arming=arming)
        interpreter = os.path.realpath(sys.executable)
        path = str(folder / _SOCKET)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(path)
            door.listen()
            command = [interpreter, "-IS", "-c", program, SERVER_OPTION, str(door.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                cwd="/",
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LANG": "C.UTF-8",
                },
                pass_fds=[door.fileno()],
            )
        entry.write_text(f"{first}\n{_ASK.format(option=SERVER_OPTION, path=path)}{rest}")

    def close(self) -> None:
        """End the zygote; its servers go on."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

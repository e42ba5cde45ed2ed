"""Cold calls by a runtime without the start of Python: scripts that let a forked process make the call.

A runtime executes the plugins itself, so `Host.plugin` cannot fork its cold calls, each of which imports for
0.1 s of CPU. A script passes its arguments, environment and streams to a process that has done the imports.
That process forks. The child enters the namespaces of the script and goes on as the plugin would, and the
script ends with the child's exit status. Tests of the start, and of signals, use the real executables.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from cni.state import executables
from cni.testing.zygote import START_OF_PLUGINS

_SCRIPT = """\
#!{python} -IS
import _socket, posix, sys
door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
door.connect({door!r})
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
words = [sys.argv[0].encode(), *(b"=".join(each) for each in posix.environ.items())]
door.sendmsg([b"\\0".join(words)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
status = int(door.recv(8))
posix._exit(status) if status >= 0 else posix.kill(posix.getpid(), -status)
"""
_PROGRAM = """
import ctypes, gc, importlib, json, os, select, socket, struct, sys
sys.path[:0] = {paths!r}
{start}
gc.freeze()
libc = ctypes.CDLL(None)

def become_call(connection):
    message, fds, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    for namespace in [os.open(f"/proc/{{pid}}/ns/{{kind}}", os.O_RDONLY) for kind in ("net", "mnt")]:
        if libc.setns(namespace, 0):
            return
        os.close(namespace)
    os.chdir("/")
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    path, *variables = message.decode().split("\\0")
    os.environ.clear()
    os.environ.update(each.split("=", 1) for each in variables)
    sys.argv = [path]
    start(path)

door = socket.socket(fileno=int(sys.argv[1]))
calls = {{}}
while True:
    ready, _, _ = select.select([0, door, *calls], [], [])
    if 0 in ready:
        os._exit(0)
    if door in ready:
        connection, _ = door.accept()
        child = os.fork()
        if child == 0:
            door.close()
            try:
                become_call(connection)
            finally:
                os._exit(99)
        calls[os.pidfd_open(child)] = child, connection
    for ended in calls.keys() & set(ready):
        child, connection = calls.pop(ended)
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            connection.send(str(status).encode())
        except OSError:
            # A test has killed the script.
            pass
        connection.close()
"""


def without_start(bindir: Path) -> Path:
    """Return the folder of scripts for `bindir`, or `bindir` if its executables do not start Python."""
    is_cold = (bindir.parent / "plugins.json").exists() and not (bindir.parent / "pycni").exists()
    return _scripts_for(bindir) if is_cold else bindir


@cache
def _scripts_for(bindir: Path) -> Path:
    """Return a folder of scripts under the names in `bindir`, a folder of `make_bindir`."""
    folder = Path(tempfile.mkdtemp(prefix="cold-scripts-"))
    paths = [path for path in sys.path if path and Path(path).is_dir()]
    start = START_OF_PLUGINS.format(table=str(bindir.parent / "plugins.json"), arming="")
    path = str(folder / "door")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(path)
        door.listen(64)
        process = subprocess.Popen(
            [
                os.path.realpath(sys.executable),
                "-IS",
                "-c",
                _PROGRAM.format(paths=paths, start=start),
                str(door.fileno()),
            ],
            stdin=subprocess.PIPE,
            cwd="/",
            env={},
            pass_fds=[door.fileno()],
        )
    atexit.register(_end, process, folder)
    scripts = folder / "bin"
    scripts.mkdir()
    names = [each.name for each in bindir.iterdir()]
    executables.put(scripts, names, _SCRIPT.format(python=os.path.realpath(sys.executable), door=path))
    return scripts


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait()
    shutil.rmtree(folder)

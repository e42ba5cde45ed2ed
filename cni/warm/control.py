"""Find, start, query and stop the warm servers of this machine."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.kernel.child import run
from cni.service import status as status_file
from cni.state.executables import launched_tree
from cni.warm import report
from cni.warm.log import FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A server; `path` is its status file."""

    path: Path
    pid: int

    @property
    def build(self) -> str:
        """The build of the server, from the name of its files."""
        return self.path.stem.rpartition("-")[0]


def find() -> list[Running]:
    """Return the servers that run, including those of other namespaces with the same /run."""
    servers = [
        Running(path, status_file.holder(str(path)))
        for path in sorted(report.FOLDER.glob(f"*{status_file.SUFFIX}"))
    ]
    return [server for server in servers if server.pid]


def find_launcher(path: Sequence[str]) -> Path:
    """Return the first launcher in the folders of `path`. Raises CniError 5 if there is none."""
    for folder in filter(Path.is_dir, map(Path, path)):
        for each in sorted(folder.iterdir()):
            if each.is_file() and launched_tree(each.read_bytes()):
                return each
    raise CniError(
        Code.IO_FAILURE,
        f"no plugin of pycni in {':'.join(path)} can be served by a warm server",
        "Run `make install`, and set CNI_PATH to the folder of the installed plugins.",
    )


def socket_of(launcher: Path) -> Path:
    """Return the path of the socket that the launcher uses when this process calls it."""
    return Path(run([str(launcher), "--warm-socket"]).stdout.decode().strip())


def start(launcher: Path) -> Running:
    """Start the server, unless it runs already. Raises CniError 11 if it does not start."""
    # Outside the host's namespaces only the second call starts a server.
    for _ in range(2):
        run([str(launcher)], env={"CNI_COMMAND": "VERSION"})
    name = socket_of(launcher).stem
    if _wait(lambda: name in {server.path.stem for server in find()}):
        return next(server for server in find() if server.path.stem == name)
    raise CniError(
        Code.TRY_AGAIN,
        "no warm server has started",
        f"Remove /etc/cni/pycni/warm-off if it exists; else read the reason in {FILE}.",
    )


def stop_all() -> list[Running]:
    """End all servers and return them. Raises CniError 11 if one did not end."""
    servers = find()
    for server in servers:
        if not stop(server):
            raise CniError(
                Code.TRY_AGAIN,
                f"the warm server, process {server.pid}, has not ended within {_TIMEOUT_S} s",
                "Kill it if it is stopped (state T in /proc/PID/status).",
            )
    return servers


def stop(server: Running) -> bool:
    """End a server; running calls finish. Return False if it still runs after 5 seconds."""
    status_file.signal_holder(str(server.path), signal.SIGTERM)
    return _wait(lambda: not status_file.holder(str(server.path)))


def status(server: Running) -> dict[str, Any]:
    """Return the server's uptime in seconds, requests, workers and memory (PSS in KiB).

    If the server does not respond within 5 seconds, only `build` and `pid` are returned.
    """
    identity = {"build": server.build, "pid": server.pid}
    reported = before = status_file.read(str(server.path))
    status_file.signal_holder(str(server.path), signal.SIGUSR1)

    def is_new() -> bool:
        nonlocal reported
        reported = status_file.read(str(server.path))
        # The file is empty while the server writes it.
        return reported.get("asked", before.get("asked")) != before.get("asked")

    if not _wait(is_new):
        return identity
    del reported["asked"]
    return {
        **identity,
        **reported,
        "pss_kib": sum(map(status_file.pss_kib, [server.pid, *reported["workers"]])),
    }


def children(pid: int) -> list[int]:
    """Return the process IDs of a process's children. proc(5), task/TID/children."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _wait(is_done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _TIMEOUT_S
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

"""The warm servers of this machine as their operator sees them: which run, what they cost, end them."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.warm.log import FILE

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = FILE.parent
_PEER_CREDENTIALS = struct.Struct("3i")
_WITHIN_S = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at its socket."""

    path: Path
    pid: int

    @property
    def build(self) -> str:
        """The build it belongs to, which its socket is named after."""
        return self.path.stem.rsplit("-", 5)[0]


def find() -> list[Running]:
    """Give the servers that can be reached, those of other namespaces under the same /run included."""
    found = []
    for path in sorted(FOLDER.glob("*.sock")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(1)
            connection.connect(str(path))
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            found.append(Running(path, _PEER_CREDENTIALS.unpack(raw)[0]))
    return found


def stop(server: Running) -> bool:
    """End a server; calls in hand are finished. False if it was still there after 5 seconds."""
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    return _wait(lambda: not Path(f"/proc/{server.pid}").exists())


def status(server: Running) -> dict[str, Any]:
    """Ask a server for its uptime in seconds, requests and workers; adds what it costs, in KiB of PSS."""
    file = status_file(server.path)
    before = _changed(file)
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGUSR1)
    if not _wait(lambda: _changed(file) != before):
        return {"build": server.build, "pid": server.pid}
    told: dict[str, Any] = json.loads(file.read_text())
    pids = [server.pid, *told["workers"]]
    return {"build": server.build, "pid": server.pid, **told, "pss_kib": sum(map(pss_kib, pids))}


def status_file(path: Path) -> Path:
    """Give the file in which the server at a socket tells of itself when it gets SIGUSR1."""
    return path.with_suffix(".status")


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def pss_kib(pid: int) -> int:
    """Give a process's share of memory, 0 when it has gone: proc(5), smaps_rollup."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _wait(is_done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _WITHIN_S
    while not is_done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

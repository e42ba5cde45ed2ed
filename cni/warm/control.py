"""The warm servers of this machine as their operator sees them: which run, what they cost, end them."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.kernel.child import run
from cni.state.executables import launched_tree
from cni.warm import report
from cni.warm.log import FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WITHIN_S = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A server; `path` is its status file."""

    path: Path
    pid: int

    @property
    def build(self) -> str:
        """The build it belongs to, which its files are named after."""
        return self.path.stem.rpartition("-")[0]


def find() -> list[Running]:
    """Give the servers that run, those of other namespaces under the same /run included."""
    found = [Running(path, report.holder(path)) for path in sorted(report.FOLDER.glob(f"*{report.SUFFIX}"))]
    return [each for each in found if each.pid]


def find_launcher(path: Sequence[str]) -> Path:
    """Give a plugin in the folders of `path` that is served warm, the first by name. Raises CniError 5."""
    for folder in filter(Path.is_dir, map(Path, path)):
        for each in sorted(folder.iterdir()):
            if each.is_file() and launched_tree(each.read_bytes()):
                return each
    raise CniError(
        Code.IO_FAILURE,
        f"no plugin of pycni's in {':'.join(path)} can be served warm",
        "`make install` puts such plugins into a folder; CNI_PATH names it",
    )


def place_of(launcher: Path) -> Path:
    """Give the socket at which the launcher, called by us, looks for its server."""
    return Path(run([str(launcher), "--warm-socket"]).stdout.decode().strip())


def start(launcher: Path) -> Running:
    """Let a server start, or find it running. Raises CniError 11 when none can be had."""
    # Elsewhere than on the host only the second call starts one.
    for _ in range(2):
        run([str(launcher)], env={"CNI_COMMAND": "VERSION"})
    wanted = place_of(launcher).stem
    if _wait(lambda: wanted in {server.path.stem for server in find()}):
        return next(server for server in find() if server.path.stem == wanted)
    raise CniError(
        Code.TRY_AGAIN,
        "no warm server has started",
        f"switched off by /etc/cni/pycni/warm-off, or {FILE} tells why",
    )


def stop_all() -> list[Running]:
    """End all servers. Raises CniError 11 naming one that did not end."""
    found = find()
    for server in found:
        if not stop(server):
            raise CniError(Code.TRY_AGAIN, f"process {server.pid} has not ended", "it may have been stopped")
    return found


def stop(server: Running) -> bool:
    """End a server; calls in hand are finished. False if it was still there after 5 seconds."""
    report.signal_holder(server.path, signal.SIGTERM)
    return _wait(lambda: not report.holder(server.path))


def status(server: Running) -> dict[str, Any]:
    """Ask a server for uptime in seconds, requests and workers; adds what it costs, in KiB of PSS.

    One that does not answer within 5 seconds is told by `build` and `pid` only.
    """
    known = {"build": server.build, "pid": server.pid}
    told = before = report.read(server.path)
    report.signal_holder(server.path, signal.SIGUSR1)

    def is_answered() -> bool:
        nonlocal told
        told = report.read(server.path)
        # While it is written the file is empty.
        return told.get("asked", before.get("asked")) != before.get("asked")

    if not _wait(is_answered):
        return known
    del told["asked"]
    return {**known, **told, "pss_kib": sum(map(pss_kib, [server.pid, *told["workers"]]))}


def children(pid: int) -> list[int]:
    """Give a process's children: the workers of a server. proc(5), task/TID/children."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


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

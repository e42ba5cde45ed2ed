"""The warm server's status file beside its socket, see cni/service/status.py."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni.service import status

if TYPE_CHECKING:
    from cni.warm.worker_pool import WorkerPool

FOLDER = Path("/run/pycni/warm")


class Report:
    """The server's side. Workers do not hold the lock, because fork(2) does not inherit POSIX locks."""

    def __init__(self, socket_path: Path) -> None:
        self._path = str(socket_path.with_suffix(status.SUFFIX))
        self._started = time.monotonic()
        self._written = 0
        self._fd = status.create(self._path)

    def write(self, pool: WorkerPool) -> None:
        """Write a report. Its key `asked` counts reports, so that a client recognises a new one."""
        self._written += 1
        report = {
            "uptime_s": round(time.monotonic() - self._started),
            "requests": pool.requests,
            "workers": pool.workers,
            "busy": pool.busy,
            "workers_made": pool.forked,
            "asked": self._written,
        }
        status.write(self._fd, json.dumps(report).encode())

    def remove(self) -> None:
        """Remove the status file, but not a newer server's."""
        status.remove(self._path, self._fd)

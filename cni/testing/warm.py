"""Warm servers on a test's host: how they are set up, and their end with the host."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.warm import control

if TYPE_CHECKING:
    from cni.testing.place import Place

# A server that a killed test run leaves behind keeps namespaces alive no longer than this.
_IDLE_S = 120


def set_up(place: Place, **settings: int) -> None:
    """Write the settings of servers that calls on a host will start, and make the folder that they live in.

    `settings` are the keys of `/etc/cni/pycni/warm.json`.
    """
    place.call(_set_up, json.dumps({"idleSeconds": _IDLE_S} | settings))


def _set_up(text: str) -> None:
    # Else the first call would make it, and a test that looks at all files would count it.
    Path("/run/pycni/warm").mkdir(mode=0o700, parents=True)
    Path("/run/pycni").chmod(0o700)
    Path("/etc/cni/pycni").mkdir(parents=True, exist_ok=True)
    Path("/etc/cni/pycni/warm.json").write_text(text)
    # A test's host is not that of process 1.
    Path("/etc/cni/pycni/warm-everywhere").touch()


def switch_off(place: Place) -> None:
    """Let every call on a host be a process of its own, with installed plugins too."""
    place.run(["install", "-D", "/dev/null", "/etc/cni/pycni/warm-off"])


def end(place: Place) -> None:
    """End all servers of a host, with their workers, whatever these are doing."""
    folder = Path(f"/proc/{place.holder}/root/run/pycni/warm")
    if folder.is_dir() and any(folder.glob("*.sock")):
        place.call(_end)


def _end() -> None:
    for server in control.find():
        # Workers that wait end with their server, those in a call when they have done it.
        workers = control.children(server.pid)
        for pid in [server.pid, *workers]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

"""Warm servers on a test's host: how they are set up, and their end with the host."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.program.entry import SERVER_OPTION

if TYPE_CHECKING:
    from cni.testing.place import Place

# A server that a killed test run leaves behind keeps namespaces alive no longer than this.
_IDLE_S = 120
_FOLDER = "run/pycni/warm"


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
    """Kill all servers of a host with their workers, whatever these are doing."""
    folder = Path(f"/proc/{place.holder}/root") / _FOLDER
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    for process in Path("/proc").glob("[0-9]*"):
        # A process that has ended is passed over.
        with suppress(OSError):
            if (process / "root" / _FOLDER).samefile(folder) and _is_server(process):
                os.kill(int(process.name), signal.SIGKILL)


def _is_server(process: Path) -> bool:
    """Return whether a process is a server, even one that has no socket yet, or a worker of one."""
    return SERVER_OPTION.encode() in (process / "cmdline").read_bytes().split(b"\0")

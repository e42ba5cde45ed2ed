"""Set up warm servers on a test's host, and end them with the host."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.program.entry import SERVER_OPTION
from cni.service.guard import OPTION

if TYPE_CHECKING:
    from cni.testing.place import Place

# A server that remains after a killed test run keeps its namespaces alive for this time.
_IDLE_S = 120
_FOLDER = "run/pycni"
# A pass takes some milliseconds, as long as a killed process needs to end.
_MOST_PASSES = 100


def set_up(place: Place, **settings: int) -> None:
    """Write the settings of the servers that calls on a host start, and create their directory.

    `settings` are the keys of `/etc/cni/pycni/warm.json`.
    """
    place.visit(_set_up, json.dumps({"idleSeconds": _IDLE_S} | settings))


def _set_up(text: str) -> None:
    # Otherwise the first call creates it, and snapshots of all files differ.
    Path("/run/pycni/warm").mkdir(mode=0o700, parents=True)
    Path("/run/pycni").chmod(0o700)
    Path("/etc/cni/pycni").mkdir(parents=True, exist_ok=True)
    Path("/etc/cni/pycni/warm.json").write_text(text)
    # Servers start only in the namespaces of process 1, unless this file exists.
    Path("/etc/cni/pycni/warm-everywhere").touch()


def switch_off(place: Place) -> None:
    """Make each call on a host a process of its own, also for installed plugins."""
    place.run(["install", "-D", "/dev/null", "/etc/cni/pycni/warm-off"])


def end(place: Place) -> None:
    """Kill all servers of a host with their workers, and all helpers, whatever these are doing."""
    folder = Path(f"/proc/{place.holder}/root") / _FOLDER
    if not any(each.is_dir() and any(each.iterdir()) for each in (folder / "warm", folder / "helpers")):
        return
    # A helper whose guard is killed becomes a guard itself, and may be missed at that moment.
    for _ in range(_MOST_PASSES):
        if not _kill_all(folder):
            return


def _kill_all(folder: Path) -> bool:
    """Kill all servers of the host with this folder once. Return whether a helper may be left."""
    # pathlib takes longer, and a machine has many processes, most of them in the first two namespaces.
    others = {_mounts_of("self"), _mounts_of("1")}
    own = os.stat(folder)  # noqa: PTH116
    may_be_left = False
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        if _mounts_of(name) in others:
            continue
        # A process that has ended is passed over.
        with suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{name}/root/{_FOLDER}"), own):  # noqa: PTH116
                arguments = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
                is_helper = OPTION.encode() in arguments
                # Without any it is just executing a program, as a helper does that becomes a guard.
                may_be_left |= is_helper or arguments == [b""]
                # Also a server that has no socket yet, and its workers.
                if is_helper or SERVER_OPTION.encode() in arguments:
                    os.kill(int(name), signal.SIGKILL)
    return may_be_left


def _mounts_of(process: str) -> str:
    """Return the mount namespace of a process; "" if it has ended, or if this user may not see it."""
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")  # noqa: PTH115
    except OSError:
        return ""

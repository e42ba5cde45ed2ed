"""Containers of `pycni run` on a test's host."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.netns.attached_world import World
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    import subprocess

    from cni.testing import Host
    from cni.testing.zygote import ForkedCall

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/usr/bin/python3"
# Neither of them is of a container that has ended.
_STAY = ("/run/pycni/", "default", "/var/lib/cni/networks/")


class RunWorld(World):
    """A host with the network "web", and commands on it."""

    def __init__(self, host: Host, folder: Path, backend: str = "nftables", **keys: Any) -> None:
        super().__init__(host, folder, backend, **keys)
        self.folder = folder
        self.started: list[ForkedCall] = []

    def start(self, *arguments: str, stdin: str = "", **env: str) -> ForkedCall:
        """Start `pycni run` with arguments."""
        call = self._command.start(self.host.place, "run", *arguments, env={"PATH": PATH, **env}, stdin=stdin)
        self.started.append(call)
        return call

    def started_until(self, *arguments: str, script: str = "exec sleep 1000", **env: str) -> ForkedCall:
        """Start `pycni run` with a script of the shell. Return when the script runs, and has been told of."""
        ready = self.folder / f"ready{len(self.started)}"
        call = self.start(*arguments, "--", "sh", "-c", f"touch {ready}; {script}", **env)
        wait_until(lambda: ready.exists() or call.has_ended())
        assert ready.exists(), call.finish(LONG_S).stderr
        wait_until(lambda: _is_told_of(call) or call.has_ended())
        return call

    def end(self, call: ForkedCall, number: int = signal.SIGTERM) -> subprocess.CompletedProcess[str]:
        """Send a signal to a command, and wait for its end."""
        os.kill(call.pid, number)
        return call.finish(LONG_S)

    def close(self) -> None:
        """Kill what still runs."""
        for each in self.started:
            each.__exit__()

    def attachments(self) -> list[dict[str, Any]]:
        """Return the attachments of all networks, as `pycni show` prints them."""
        shown = json.loads(self.ok("show", "--json"))["networks"]
        return [{"network": each["name"], **one} for each in shown for one in each["attachments"]]

    def remains(self, before: Any) -> list[str]:
        """Return what has been added since a snapshot, and names of runs."""
        added = [each for each in before.differences(self.host.snapshot()) if each.startswith("+ ")]
        named = self.host.run(["sh", "-c", "ls /run/netns /run/pycni/runs 2>/dev/null || true"]).split()
        paths = ["/run/netns:", "/run/pycni/runs:", "outside", *self.sandboxes]
        return [
            *(each for each in added if not any(one in each for one in _STAY)),
            *(each for each in named if each not in paths),
        ]


def _is_told_of(call: ForkedCall) -> bool:
    """Return whether the first process has told `pycni run` that COMMAND runs: then it lets its streams go.

    COMMAND runs a moment before that. Who kills the first process then is told that nothing was started.
    """
    with suppress(OSError):
        return Path(os.devnull) in [Path(f"/proc/{each}/fd/0").readlink() for each in children(call.pid)]
    return False


def children(pid: int) -> list[int]:
    """Return the children of a process. Not every kernel lists them: proc(5), task/TID/children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # The parent is behind the name, which may have spaces, and the state. A process may end meanwhile.
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def processes(text: str) -> list[str]:
    """Return the processes of the machine that have a text in their command line or environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            content = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in content and path.name != str(os.getpid()):
            found.append(path.name)
    return found

"""A `pycni watch` that runs on a test's host, and what it prints."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from tests.netns.attached_world import World

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Longer than the watch waits for the end of a DEL.
QUIET_S = 1.5


class WatchProcess:
    """The command with `--format json`; it is ready when it is made."""

    def __init__(self, world: World, *options: str, **env: str) -> None:
        self._process = world.host.place.popen(
            [world.command, "watch", "--format", "json", *options], env={"PATH": PATH, **env}
        )
        assert self._process.stdout
        self._stdout = self._process.stdout.fileno()
        self._text = b""
        self.pid = self._process.pid
        self.first = self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def next(self) -> Any:
        """Return the next line, within a time that is long enough on any machine."""
        deadline = time.monotonic() + LONG_S
        while b"\n" not in self._text:
            assert select.select([self._stdout], [], [], max(0, deadline - time.monotonic()))[0], "silent"
            chunk = os.read(self._stdout, 1 << 16)
            assert chunk, self._process.communicate()
            self._text += chunk
        line, _, self._text = self._text.partition(b"\n")
        return json.loads(line)

    def is_silent(self) -> bool:
        """Return whether nothing was printed that `next` has not returned."""
        return not self._text and not select.select([self._stdout], [], [], 0)[0]

    def wakeups(self) -> int:
        """Return how often the process has gone to sleep: once for each time that it was woken."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)[0])

    def is_waiting_for_ever(self) -> bool:
        """Return whether the process sleeps in poll(2) or ppoll(2) without a limit, proc(5)."""
        file = Path(f"/proc/{self.pid}/syscall")
        if not file.exists():
            # Some architectures have no such file. There, `settle` alone has to do.
            return True
        words = file.read_text().split()
        return words[:1] != ["running"] and int(words[3], 16) in {0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}

    def settle(self, quiet_s: float = QUIET_S) -> None:
        """Wait until nothing has woken the process for a time."""
        seen = [time.monotonic(), self.wakeups()]

        def is_quiet() -> bool:
            now = self.wakeups()
            if now != seen[1]:
                seen[:] = [time.monotonic(), now]
            return time.monotonic() - seen[0] > quiet_s

        wait_until(is_quiet)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what was printed to stderr."""
        self.send(number)
        _, stderr = self._process.communicate(timeout=LONG_S)
        return self._process.returncode, stderr

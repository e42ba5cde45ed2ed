"""`pycni run` on a terminal: keys reach COMMAND once, and the shell can stop and continue the job."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.netns.run_world import PYTHON, RunWorld
from tests.support.patience import LONG_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

# A shell's part: a job in the foreground, which is continued when it was stopped.
SHELL = r"""
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
status = os.waitpid(child, os.WUNTRACED)[1]
while os.WIFSTOPPED(status):
    os.write(1, b"[stopped]")
    os.killpg(child, signal.SIGCONT)
    status = os.waitpid(child, os.WUNTRACED)[1]
os.write(1, b"[%d]" % os.waitstatus_to_exitcode(status))
"""
# Counts the interrupts until it reads a line.
COUNT = r"""
import os, signal, sys
caught = 0
def count(number, frame):
    global caught
    caught += 1
    os.write(1, b"(interrupt)")
signal.signal(signal.SIGINT, count)
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"(continued)"))
os.write(1, b"(ready %d)" % os.isatty(0))
sys.stdin.readline()
sys.exit(caught)
"""


class Terminal:
    """A terminal with a program on it."""

    def __init__(self, argv: list[str]) -> None:
        self._seen = b""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)  # noqa: S606 - the program of the test

    def type(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self._fd, keys)

    def expect(self, text: bytes) -> None:
        """Wait until a text was printed, after those that were waited for."""
        deadline = time.monotonic() + LONG_S
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, self._seen
            if select.select([self._fd], [], [], left)[0]:
                self._seen += os.read(self._fd, 1000)
        self._seen = self._seen.partition(text)[2]

    def close(self) -> None:
        """End the program."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def terminal(host: Host, tmp_path: Path) -> Iterator[Terminal]:
    """Yield a terminal on which a shell has started `pycni run`."""
    world = RunWorld(host, tmp_path)
    inside = ["/usr/bin/nsenter", f"--net=/proc/{host.pid}/ns/net", f"--mount=/proc/{host.pid}/ns/mnt", "--"]
    command = [world.command, "run", "--network", "web", "-it", "--", PYTHON, "-c", COUNT]
    terminal = Terminal([*inside, PYTHON, "-c", SHELL, *command])
    yield terminal
    terminal.close()


def test_keys_of_a_terminal_reach_the_command_once(terminal: Terminal) -> None:
    terminal.expect(b"(ready 1)")
    for _ in range(2):
        terminal.type(b"\x03")
        terminal.expect(b"(interrupt)")
    terminal.type(b"\x1a")
    terminal.expect(b"[stopped]")
    terminal.expect(b"(continued)")
    terminal.type(b"\n")
    terminal.expect(b"[2]")

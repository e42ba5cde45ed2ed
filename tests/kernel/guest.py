"""One guest: the second kernel as a process that runs a shell script and ends."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
_MEMORY = "2G"
# Links that the kernel makes in the first namespace by itself.
_NO_LINKS = ["dummy.numdummies=0", "ifb.numifbs=0", "bonding.max_bonds=0"]


class GuestError(Exception):
    """A guest ended without the status of its job; the message has the end of its console."""


class Guest:
    """Start a guest that runs the script `job` in the folder `folder`, on one processor of this process.

    `number` chooses the processor. The guest's kernel and its programs are processes that wait for each
    other: on two processors they take twice as much CPU time.

    `show` gets each line of its output at once, from a thread. `reports` has the lines of JSON that the job
    has written to /dev/ttyS1, without the last one, which is the exit status.
    """

    def __init__(
        self, kernel: Path, job: Path, folder: Path, show: Callable[[str], None], number: int = 0
    ) -> None:
        self.reports: list[Any] = []
        self._console: deque[str] = deque(maxlen=30)
        console, output, report = (os.pipe() for _ in range(3))
        processors = sorted(os.sched_getaffinity(0))
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("taskset", "--cpu-list", str(processors[number % len(processors)])),
            *("sh", str(HERE / "readonly.sh"), str(kernel), f"mem={_MEMORY}", "uml_dir=/dev/shm", *_NO_LINKS),
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={HERE / 'init.sh'}"),
            *("con=null", f"con0=null,fd:{console[1]}", "ssl=null"),
            *(f"ssl0=null,fd:{output[1]}", f"ssl1=null,fd:{report[1]}", f"job={job}", f"folder={folder}"),
        ]  # fmt: skip
        ends = [pipe[1] for pipe in (console, output, report)]
        # An interrupt from the terminal is for the process that waits. Not a session of its own: the
        # scheduler gives as much time to a session of one process as to one of many.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console[1],
            stderr=console[1],
            env={**os.environ, "TMPDIR": "/dev/shm"},  # noqa: S108 - a new tmpfs
            pass_fds=ends,
            process_group=0,
        )
        for end in ends:
            os.close(end)
        readers = ((console[0], self._console.append), (output[0], show), (report[0], self._take))
        self._threads = [threading.Thread(target=_read, args=each, daemon=True) for each in readers]
        for thread in self._threads:
            thread.start()

    def _take(self, line: str) -> None:
        self.reports.append(json.loads(line))

    def wait(self, limit_s: float, silence_s: float | None = None) -> int:
        """Return the exit status of the job.

        Raise GuestError if there is none within the limit, or if the job reports nothing for `silence_s`.
        """
        try:
            self._wait(time.monotonic() + limit_s, silence_s or limit_s)
        except subprocess.TimeoutExpired:
            count = len(self.reports)
            last = f", {count} reports after its start" if count else ""
            raise GuestError(
                f"the guest did not end within {limit_s:g} s{last}{self._last_words()}"
            ) from None
        finally:
            self.end()
        if not self.reports or not isinstance(self.reports[-1], int):
            code = self._process.returncode
            raise GuestError(f"the guest ended early, with status {code}{self._last_words()}")
        status: int = self.reports.pop()
        return status

    def _wait(self, deadline: float, silence_s: float) -> None:
        reports, last = 0, time.monotonic()
        while self._process.poll() is None:
            now = time.monotonic()
            if len(self.reports) != reports:
                reports, last = len(self.reports), now
            left = min(deadline, last + silence_s) - now
            if left <= 0:
                raise subprocess.TimeoutExpired("", 0)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(min(left, 1))

    def end(self) -> None:
        """End the guest with all of its processes."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()

    def _last_words(self) -> str:
        return "; its console:\n" + "\n".join(self._console)


def _read(fd: int, take: Callable[[str], None]) -> None:
    with os.fdopen(fd, errors="replace") as stream:
        for line in _lines(stream):
            take(line)


def _lines(stream: IO[str]) -> Iterator[str]:
    return (stripped for line in stream if (stripped := line.rstrip("\r\n")))

"""The installer in a small process, or in a child of it that is killed or interrupted at one of its changes.

A test process has collected thousands of tests. Its fork takes 8 ms of CPU, more than an installation of
three plugins, and some tests install a thousand times.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

# Python's audit events of what changes a file system, and of what reads it, for the points to be killed at.
EVENTS = {
    "open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.utime",
    "shutil.copyfile", "tempfile.mkdtemp",
}  # fmt: skip
KILLED = 77
_FAILED = 99


class Installer:
    """The process that runs the installer. Use it as a context."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        bundle: Path,
        arguments: Sequence[str],
        output: Path,
        root: Path,
        *,
        die_at: int = 0,
        interrupt_at: int = 0,
    ) -> int:
        """Run the installer of a bundle with its output in a file, and return its exit status.

        It is killed or interrupted before one of its events with paths below `root`, the first being 1.
        """
        request = [str(bundle), list(arguments), str(output), str(root), die_at, interrupt_at]
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> None:
    """Run the installer for each line of stdin, and write its exit status to what is stdout at first."""
    # What the children run is imported once, here.
    import install  # noqa: F401 - see above

    statuses = os.fdopen(os.dup(1), "w")
    gc.freeze()
    for line in sys.stdin:
        bundle, arguments, output, root, die_at, interrupt_at = json.loads(line)
        if not die_at and not interrupt_at:
            _redirect(output)
            status = _install(bundle, arguments)
        elif (child := os.fork()) == 0:
            status = _FAILED
            try:
                _redirect(output)
                _stop_at(die_at or interrupt_at, root, is_interrupt=bool(interrupt_at))
                status = _install(bundle, arguments)
            finally:
                os._exit(status)
        else:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        statuses.write(f"{status}\n")
        statuses.flush()


def _redirect(output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _install(bundle: str, arguments: list[str]) -> int:
    import install

    install.BUNDLE = Path(bundle)
    sys.argv = ["install", *arguments]
    try:
        return install.main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _stop_at(number: int, root: str, *, is_interrupt: bool) -> None:
    count = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if event in EVENTS and args and str(args[0]).startswith(root):
            count += 1
            if count == number and is_interrupt:
                raise KeyboardInterrupt
            if count == number:
                os._exit(KILLED)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()

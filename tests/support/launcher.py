"""Compile the launcher and the library of workers from the current sources."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from cni.warm import connection
from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def compile_launcher(folder: Path) -> Path:
    """Return the launcher, compiled into a folder; the library is beside it.

    Raise CalledProcessError if there is no compiler for static programs.
    """
    program = folder / "launcher"
    for output, build in ((program, "launcher"), (folder / connection.FILE, "connection")):
        sources = map(str, (ROOT / "build" / build).glob("*.c"))
        command = [str(ROOT / "build" / build / "compile.sh"), str(output), *sources]
        subprocess.run(command, capture_output=True, text=True, check=True)
    return program

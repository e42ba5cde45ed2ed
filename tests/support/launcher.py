"""The launcher and the library of workers, as `make bundle` has built them or compiled from the sources."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from cni.warm import connection
from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# File beside the launcher: the folder of its sources.
_FILES = {"launcher": "launcher", connection.FILE: "connection"}


def compile_launcher(folder: Path) -> Path:
    """Return the launcher of the current sources; the library is beside it.

    Compile them into `folder`, which takes 0.6 s of CPU, unless those in dist/ are newer than all sources.
    Raise CalledProcessError if there is no compiler for static programs.
    """
    if _is_built():
        return ROOT / "dist/launcher"
    for file, build in _FILES.items():
        sources = map(str, (ROOT / "build" / build).glob("*.c"))
        command = [str(ROOT / "build" / build / "compile.sh"), str(folder / file), *sources]
        subprocess.run(command, capture_output=True, text=True, check=True)
    return folder / "launcher"


def _is_built() -> bool:
    """Return whether the files in dist/ are there and newer than all sources and headers."""
    built = [ROOT / "dist" / file for file in _FILES]
    sources = [path for build in _FILES.values() for path in (ROOT / "build" / build).iterdir()]
    return all(path.is_file() for path in built) and (
        min(path.stat().st_mtime_ns for path in built) > max(path.stat().st_mtime_ns for path in sources)
    )

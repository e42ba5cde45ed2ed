"""Make a directory of executables for tests: plugins from their source folders."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cni.state import executables
from cni.testing.faults import ARMING
from cni.warm import connection

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_bindir(folder: Path, packages: Mapping[str, str]) -> Path:
    """Make executables for plugins that this Python can import, and return their directory.

    `packages` is plugin name to package name, {"my-plugin": "cni_my_plugin"}: the package has PLUGIN.
    """
    bindir = folder / "bin"
    bindir.mkdir()
    table = folder / "plugins.json"
    table.write_text(json.dumps(dict(packages)))
    executables.put(bindir, packages, executables.plugin_script(_paths(), str(table)))
    return bindir


def make_warm_bindir(
    folder: Path,
    packages: Mapping[str, str],
    launcher: Path,
    build: str = "test",
    *,
    with_faults: bool = False,
) -> Path:
    """Make a folder of executables that are the compiled launcher: plugins served by a warm server.

    The compiled library of `cni.warm.connection` must be beside `launcher`. With `with_faults` the plugins
    obey the variable of `cni.testing.faults`.
    """
    bindir = folder / "bin"
    bindir.mkdir()
    table = folder / "plugins.json"
    table.write_text(json.dumps(dict(packages)))
    entry = executables.entry_script(_paths(), str(table), str(bindir))
    if with_faults:
        entry = entry.replace("from cni.program.entry", f"{ARMING}from cni.program.entry")
    executables.put(folder, ["pycni"], entry)
    shutil.copy(launcher.with_name(connection.FILE), folder)
    executables.put(bindir, packages, executables.launcher(launcher.read_bytes(), str(folder), build))
    return bindir


def make_command(folder: Path, bindir: Path) -> Path:
    """Make the command `pycni` that looks for plugins in `bindir`, and return its path."""
    executables.put(folder, ["pycni"], executables.command_script(_paths(), str(bindir)))
    return folder / "pycni"


def _paths() -> list[str]:
    return [path for path in sys.path if path and Path(path).is_dir()]

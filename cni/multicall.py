"""One executable under many names: the name it was called by is the plugin.

Also where a delegate that is the same executable is run as a function instead of a process: the same
environment, stdin and stdout, only without a second start.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cni import skel
from cni.errors import CniError, Code
from cni.invoke import run_executable
from cni.same_program import is_same_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plugin import Plugin

    Table = Mapping[str, str]


def main(executable: str, table_file: str, name: str = "") -> NoReturn:
    """Be the plugin called `name`, by default the one that the file `executable` is named after.

    `table_file` is JSON, plugin name to package name.
    """
    table = json.loads(Path(table_file).read_text())
    skel.main(partial(load, name or Path(executable).name, table), partial(run_delegate, executable, table))


def load(name: str, table: Table) -> Plugin[Any]:
    """Import the plugin of that name. Raises CniError 999 when this build has none."""
    if name not in table:
        raise CniError(
            Code.INTERNAL,
            f'there is no plugin "{name}" in this executable',
            f"it must be called by the name of one of: {', '.join(sorted(table))}",
        )
    package = sys.modules.get(table[name]) or importlib.import_module(table[name])
    plugin: Plugin[Any] = package.PLUGIN
    return plugin


def run_delegate(
    called: str, table: Table, executable: Path, env: Mapping[str, str], stdin: bytes
) -> tuple[int, bytes]:
    """Run a delegate as a function if its file is what we were started from or a copy, else as a process."""
    if executable.name not in table or not is_same_program(str(executable), called):
        return run_executable(executable, env, stdin)
    stdout = BytesIO()
    loader = partial(load, executable.name, table)
    status = skel.run(loader, env, BytesIO(stdin), stdout, partial(run_delegate, called, table))
    return status, stdout.getvalue()

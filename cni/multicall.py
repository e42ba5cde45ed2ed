"""One executable under many names: the name that it is called by selects the plugin.

A delegate that is the same executable runs as a function with the same environment and stdin, which saves a
second start.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cni import skel
from cni.delegate import run_executable
from cni.errors import CniError, Code
from cni.state.same_program import is_same_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plugin import Plugin

    Table = Mapping[str, str]


def main(executable: str, table_file: str, name: str = "") -> NoReturn:
    """Run the plugin `name`, by default the one that the file `executable` is named after.

    `table_file` is a JSON object of plugin names and their packages.
    """
    table = json.loads(Path(table_file).read_text())
    loader = partial(load, name or Path(executable).name, table, executable)
    skel.main(loader, partial(run_delegate, executable, table))


def load(name: str, table: Table, executable: str = "") -> Plugin[Any]:
    """Import the plugin for a file name. Raise CniError 5 if this build has none.

    A symbolic link may have any name. The name of the `executable` that it leads to counts then.
    """
    found = resolve(name, table)
    if not found and executable:
        found = resolve(os.path.basename(os.path.realpath(executable)), table)  # noqa: PTH119 - text only
    if not found:
        known = ", ".join(sorted(table))
        raise CniError(
            Code.IO_FAILURE,
            f'no plugin of this suite has the name "{name}", or ends it behind "-", "_" or "."',
            f'Name the file after one of {known}, or after a prefix and one of them, as "my-bridge".',
        )
    package = sys.modules.get(table[found]) or importlib.import_module(table[found])
    plugin: Plugin[Any] = package.PLUGIN
    return plugin


def resolve(name: str, table: Table) -> str:
    """Return the plugin that a file name selects, "" if there is none.

    Distributions rename plugins, and users copy and link them: "cnv-bridge" is bridge. The longest known
    suffix counts, so that a plugin "x-bridge" takes precedence over "bridge". A separator must precede the
    suffix, as "mybridge" may be another program.
    """
    if name in table:
        return name
    known = [each for each in table if name.endswith((f"-{each}", f"_{each}", f".{each}"))]
    return max(known, key=len, default="")


def run_delegate(
    called: str, table: Table, executable: Path, env: Mapping[str, str], stdin: bytes
) -> tuple[int, bytes]:
    """Run a delegate as a function if its file is our executable or a copy of it, otherwise as a process."""
    if not resolve(executable.name, table) or not is_same_program(str(executable), called):
        return run_executable(executable, env, stdin)
    stdout = BytesIO()
    loader = partial(load, executable.name, table)
    status = skel.run(loader, env, BytesIO(stdin), stdout, partial(run_delegate, called, table))
    return status, stdout.getvalue()

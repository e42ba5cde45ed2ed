"""The one program of an installed suite: a plugin, the warm server, or the command `pycni`.

The launcher selects the role: it sets the two variables below for a plugin and passes the option for the
server. A user who runs the program gets the command. Imports are in `main`: a cold call of a plugin must not
import the server or the command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

NAME_VARIABLE = "PYCNI_NAME"
EXECUTABLE_VARIABLE = "PYCNI_EXECUTABLE"
SERVER_OPTION = "--warm-server"


def main(table_file: str, bindir: str = "") -> NoReturn:
    """Run the selected role. `table_file` is JSON, plugin name to package name."""
    name = os.environ.pop(NAME_VARIABLE, "")
    executable = os.environ.pop(EXECUTABLE_VARIABLE, "")
    if name:
        from cni import multicall

        multicall.main(executable, table_file, name)
    if sys.argv[1:2] == [SERVER_OPTION]:
        from cni.warm import server

        server.main(Path(sys.argv[2]), sys.argv[3], Path(table_file))
    from cni.cli import start

    start.main(bindir)

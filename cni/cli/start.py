"""Start and end of the process `pycni`.

`main` imports the command when the process is prepared: most of what a run costs are imports.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

from cni.log import flush
from cni.skel import keep_pydantic_alone


def main(bindir: str = "") -> NoReturn:
    """Run the command line and exit with its exit code.

    `bindir` is the folder of this installation's plugins, the default of CNI_PATH.
    """
    prepare()
    if bindir and not os.environ.get("CNI_PATH"):
        os.environ["CNI_PATH"] = bindir
    for name in ("stdout", "stderr"):
        # None if the caller has closed the descriptor.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the end
    from cni.cli.main import run

    leave(run(sys.argv[1:]))


def prepare() -> None:
    """Make the imports that follow cheaper."""
    # Modules make no garbage: collections take 15 ms, and free nothing.
    gc.disable()
    keep_pydantic_alone()


def leave(status: int) -> NoReturn:
    """End the process. To destroy modules and objects one by one would take another 35 ms."""
    try:
        sys.stdout.flush()
    except OSError:
        status = status or 1
    flush()
    os._exit(status)

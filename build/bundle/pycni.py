"""The program of a bundle. It runs the whole suite, the installer included."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run the installer if its name is called, else what `cni.program.entry` selects."""
    _restore_environment()
    if sys.argv[1:2] in (["--install"], ["--uninstall"]):
        from cni.cli import start

        start.prepare()
        import install

        start.leave(install.main())
    from cni.program import entry

    # bin/python3 in the bundle runs this.
    entry.main(str(Path(sys.executable).parents[1] / "plugins.json"))


def _restore_environment() -> None:
    """Undo the changes of program.c to the environment. Otherwise child processes load our libraries."""
    before = os.environ.pop("PYCNI_LD_LIBRARY_PATH", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if before is not None:
        os.environ["LD_LIBRARY_PATH"] = before


main()

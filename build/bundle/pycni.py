"""The frozen program: all of the suite, its installer included; PyInstaller starts here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Be the installer if that is asked for, else what `cni.entry` says."""
    _restore_environment()
    if sys.argv[1:2] in (["--install"], ["--uninstall"]):
        import install

        sys.exit(install.main())
    from cni import entry

    entry.main(str(Path(__file__).with_name("plugins.json")))


def _restore_environment() -> None:
    """Take back what PyInstaller's loader did to the environment, or child processes load our libraries."""
    for name in [each for each in os.environ if each.startswith("_PYI_")]:
        del os.environ[name]
    before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if before is not None:
        os.environ["LD_LIBRARY_PATH"] = before


main()

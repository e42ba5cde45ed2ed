"""Our plugins to be measured: as installed somewhere, or the bundle as it was built."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from bench.sides import INTERFACE
from cni.state import executables
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from pathlib import Path

BUNDLE = ROOT / "dist/bundle"


def find(bindir: Path | None, folder: Path) -> tuple[Path, str]:
    """Return the bin directory to measure, and its description. `folder` is an empty one to make it in.

    Raises RuntimeError when there is none.
    """
    if bindir:
        if not (bindir / INTERFACE).exists():
            raise RuntimeError(f"there is no {bindir}/{INTERFACE}")
        return bindir, "pycni as installed"
    if not (BUNDLE / "launcher").exists():
        raise RuntimeError(f"there is no bundle in {BUNDLE}: make bundle")
    made, tree = folder / "bin", folder / "tree"
    made.mkdir()
    # A copy, because another process may rebuild the bundle meanwhile.
    shutil.copytree(BUNDLE, tree, symlinks=True)
    program = executables.launcher((tree / "launcher").read_bytes(), str(tree), "bench")
    executables.put(made, packages(declared()), program)
    return made, "pycni, from its bundle"

"""Our plugins to be measured: as installed, or launchers made here for the bundle or the sources."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cni import executables
from cni.testing.executables import make_warm_bindir
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from pathlib import Path

LAUNCHER = ROOT / "dist/launcher"
BUNDLE = ROOT / "dist/bundle"


def find(bindir: Path | None, folder: Path) -> tuple[Path, str]:
    """Give the bin directory to measure, and what it is in words; `folder` is an empty one to make it in.

    Raises RuntimeError when there is none.
    """
    if bindir:
        if not (bindir / "bridge").exists():
            raise RuntimeError(f"there is no {bindir}/bridge")
        return bindir, "pycni as installed"
    if (BUNDLE / "pycni").exists():
        return _of_bundle(folder), "pycni, from its bundle"
    if not LAUNCHER.exists():
        raise RuntimeError(f"{LAUNCHER} is missing: make launcher")
    return make_warm_bindir(folder, packages(declared()), LAUNCHER), "pycni, from its sources"


def _of_bundle(folder: Path) -> Path:
    bindir, tree = folder / "bin", folder / "tree"
    bindir.mkdir()
    # A copy, as another one may be made meanwhile.
    shutil.copytree(BUNDLE, tree, symlinks=True)
    program = executables.launcher((tree / "launcher").read_bytes(), str(tree), "bench")
    executables.put(bindir, packages(declared()), program)
    return bindir

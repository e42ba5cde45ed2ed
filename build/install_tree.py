"""The installed tree: PREFIX/<version>-<build ID>/ with our packages and all that they import.

A tree is made beside its place, then renamed, and never changed afterwards: a plugin that runs goes on
finding the files it was started with, whatever is installed meanwhile.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cni import __version__
from cni.process import run
from plugin_table import ROOT, Declared, declared, show

LOCK_FILE = ROOT / "build/lock/run.txt"
# How long a replaced tree stays for calls that still run from it; far longer than any runtime waits.
KEEP_S = 24 * 3600
_REPLACED = ".replaced"
_NEW = ".new-"


class InstallError(Exception):
    """An installation that could not be made, in words for the person who asked for it."""


def ensure_tree(prefix: Path, shown_prefix: Path) -> Path:
    """Make the tree of these sources below `prefix`, if it is not there, and give its name.

    `shown_prefix` is where it will be when it is used: `prefix` without DESTDIR. Raises InstallError.
    """
    plugins = declared()
    name = f"{__version__}-{_build_id(plugins)}"
    tree = prefix / name
    if not tree.exists():
        stage = Path(tempfile.mkdtemp(prefix=_NEW, dir=prefix))
        try:
            _fill(stage, plugins, shown_prefix / name)
            stage.chmod(0o755)
            stage.rename(tree)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    (tree / _REPLACED).unlink(missing_ok=True)
    return shown_prefix / name


def list_trees(prefix: Path) -> list[Path]:
    """Give the trees below `prefix`."""
    return sorted(path.parent.parent for path in prefix.glob("*/cni/plugins.json"))


def prune(prefix: Path, current: str) -> None:
    """Remove trees that were replaced long ago, note that others are now, and drop unfinished ones."""
    for stage in prefix.glob(f"{_NEW}*"):
        shutil.rmtree(stage)
    for tree in list_trees(prefix):
        mark = tree / _REPLACED
        if tree.name == current:
            continue
        if not mark.exists():
            mark.touch()
        elif time.time() - mark.stat().st_mtime > KEEP_S:
            shutil.rmtree(tree)


def _build_id(plugins: list[Declared]) -> str:
    """Name what a tree is made of, so that equal sources give equal trees and others never mix."""
    digest = hashlib.sha256(f"{sys.version}{show(plugins)}".encode())
    for path in [LOCK_FILE, *_sources(ROOT / "cni")]:
        _add(digest, path)
    for plugin in plugins:
        for path in _sources(plugin.folder / plugin.package):
            _add(digest, path)
    return digest.hexdigest()[:12]


def _add(digest: hashlib._Hash, path: Path) -> None:
    digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _fill(stage: Path, plugins: list[Declared], final: Path) -> None:
    _install_dependencies(stage)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cni", stage / "cni", ignore=no_caches)
    for plugin in plugins:
        shutil.copytree(plugin.folder / plugin.package, stage / plugin.package, ignore=no_caches)
    (stage / "cni/plugins.json").write_text(show(plugins))
    # The sources cannot change under their compiled form, so no call needs to compare their dates.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        stage,
        quiet=2,
        stripdir=str(stage),
        prependdir=str(final),
        invalidation_mode=mode,
        workers=os.cpu_count() or 1,
    )


def _install_dependencies(stage: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--root-user-action", "ignore"]
    done = run([*command, *options, "--target", str(stage), "-r", str(LOCK_FILE)], timeout_s=600)
    if done.status:
        raise InstallError(f"pip could not install the run-time dependencies:\n{done.stderr}")
    shutil.rmtree(stage / "bin", ignore_errors=True)

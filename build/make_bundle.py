"""`make bundle`: freeze the suite into dist/bundle, unless the bundle there is of the same sources.

    dist/bundle/pycni            the program: plugins, warm server, command, installer
    dist/bundle/bin, lib         the interpreter and all modules and libraries
    dist/bundle/plugins.json     plugin name to package name
    dist/bundle/launcher         the executable that is installed under each plugin's name
    dist/bundle/connection.so    a worker's connection to launchers
    dist/bundle/conf/            example networks for --conf
    dist/bundle/build            <version>-<hash of the sources>: the name of this build

This script runs in dist/venv, which has PyInstaller and the run-time dependencies only, so that the bundle
cannot contain other packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from cni import __version__
from plugin_table import ROOT, declared, show

if TYPE_CHECKING:
    from pathlib import Path

DIST = ROOT / "dist"
BUNDLE = DIST / "bundle"
LAUNCHER = DIST / "launcher"
PROGRAM = DIST / "program"
CONNECTION = DIST / "connection.so"


def main() -> int:
    """Freeze the suite. Return 1 if PyInstaller fails, after printing its errors."""
    DIST.mkdir(exist_ok=True)
    with (DIST / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = build_id()
        if _is_current(build):
            return 0
        return _freeze(build)


def build_id() -> str:
    """Return the version and a hash of all sources of the bundle."""
    plugins = declared()
    digest = hashlib.sha256(f"{sys.version}{show(plugins)}".encode())
    folders = [
        ROOT / "cni",
        *(each.folder / each.package for each in plugins),
        ROOT / "conf",
        ROOT / "build/bundle",
    ]
    files = [*ROOT.glob("build/install*.py"), ROOT / "build/plugin_table.py", ROOT / "build/lock/bundle.txt"]
    for path in sorted([*files, *(path for folder in folders for path in _sources(folder))]):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    for path in (LAUNCHER, PROGRAM, CONNECTION):
        digest.update(path.read_bytes())
    return f"{__version__}-{digest.hexdigest()[:12]}"


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _is_current(build: str) -> bool:
    path = BUNDLE / "build"
    return path.is_file() and path.read_text() == build


def _freeze(build: str) -> int:
    work = DIST / "work"
    folders = ["--workpath", str(work), "--distpath", str(work / "collected")]
    command = [
        sys.executable,
        "-m",
        "PyInstaller",
        "--noconfirm",
        "--clean",
        "--log-level",
        "ERROR",
        *folders,
    ]
    command.append(str(ROOT / "build/bundle/pycni.spec"))
    sys.stdout.write(f"==> bundle {build}\n")
    # Without column numbers, which only tracebacks show, code objects need less memory.
    env = {**os.environ, "PYTHONNODEBUGRANGES": "1"}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=env)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return 1
    new = work / "new"
    _arrange(work / "collected/pycni/_internal", new)
    shutil.copy2(PROGRAM, new / "pycni")
    shutil.copy2(LAUNCHER, new / "launcher")
    shutil.copy2(CONNECTION, new / "connection.so")
    (new / "conf").mkdir()
    for path in (ROOT / "conf").glob("*.conflist"):
        shutil.copy(path, new / "conf")
    (new / "build").write_text(build)
    shutil.rmtree(BUNDLE, ignore_errors=True)
    new.rename(BUNDLE)
    shutil.rmtree(work)
    return 0


def _arrange(collected: Path, new: Path) -> None:
    """Move the files that PyInstaller has collected to where an interpreter in `new`/bin looks for them."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = new / "lib" / version
    library.mkdir(parents=True)
    (new / "bin").mkdir()
    [interpreter] = (collected / "bin").iterdir()
    interpreter.rename(new / "bin/python3")
    (collected / "bin").rmdir()
    (collected / version / "lib-dynload").rename(library / "lib-dynload")
    (collected / version).rmdir()
    (collected / "plugins.json").rename(new / "plugins.json")
    for path in collected.iterdir():
        is_shared = ".so" in path.suffixes and path.is_file()
        path.rename((new / "lib" if is_shared else library) / path.name)
    py_compile.compile(
        str(ROOT / "build/bundle/pycni.py"),
        str(new / "lib/pycni.pyc"),
        "pycni.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    sys.exit(main())

"""`make bundle`: freeze the suite into dist/bundle, if what is there is not of these sources.

    dist/bundle/pycni            the program: plugins, warm server, command, installer
    dist/bundle/_internal/       all that it imports, the interpreter included
    dist/bundle/launcher         what is installed under each plugin's name
    dist/bundle/conf/            networks to choose from
    dist/bundle/build            <version>-<hash of the sources>: the name of this build

Runs in dist/venv, which has PyInstaller and the run-time dependencies and nothing else that could slip in.
"""

from __future__ import annotations

import fcntl
import hashlib
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


def main() -> int:
    """Make it; 1 when PyInstaller fails, which has told why."""
    DIST.mkdir(exist_ok=True)
    with (DIST / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = name_of_build()
        if _is_made(build):
            return 0
        return _make(build)


def name_of_build() -> str:
    """Name what the bundle is made of, so that equal sources give equal names and others never."""
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
    digest.update(LAUNCHER.read_bytes())
    return f"{__version__}-{digest.hexdigest()[:12]}"


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _is_made(build: str) -> bool:
    made = BUNDLE / "build"
    return made.is_file() and made.read_text() == build


def _make(build: str) -> int:
    work = DIST / "work"
    places = ["--workpath", str(work), "--distpath", str(work / "new")]
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "ERROR", *places]
    command.append(str(ROOT / "build/bundle/pycni.spec"))
    sys.stdout.write(f"==> bundle {build}\n")
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return 1
    new = work / "new/pycni"
    shutil.copy2(LAUNCHER, new / "launcher")
    (new / "conf").mkdir()
    for path in (ROOT / "conf").glob("*.conflist"):
        shutil.copy(path, new / "conf")
    (new / "build").write_text(build)
    shutil.rmtree(BUNDLE, ignore_errors=True)
    new.rename(BUNDLE)
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command `pycni` in PREFIX/bin, and the link to it in SBINDIR."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from cni.state import executables
from install_tree import InstallError, Prefix

if TYPE_CHECKING:
    from pathlib import Path

# Installations of earlier releases are recognised by this text.
_MARK = f"{executables.MARK}the command for people."

# The default of CNI_PATH is this installation's folder of plugins.
_FIXED = """\
#!/bin/sh
{mark}
[ -n "${{CNI_PATH-}}" ] || export CNI_PATH={bindir}
exec {prefix}/{build}/pycni "$@"
"""

# A copy of the folder of plugins contains this script, which finds the suite relative to itself.
_MOVABLE = """\
#!/bin/sh
{mark}
here=$(readlink -f "$0" 2>/dev/null) && here=${{here%/bin/pycni}}
[ -x "$here"/{build}/pycni ] || here={prefix}
[ -n "${{CNI_PATH-}}" ] || export CNI_PATH="${{here%/{below}}}"
exec "$here"/{build}/pycni "$@"
"""


def write(prefix: Prefix, bindir: Path, build: str) -> None:
    """Write PREFIX/bin/pycni."""
    is_below = prefix.shown_path.is_relative_to(bindir) and prefix.shown_path != bindir
    below = str(prefix.shown_path.relative_to(bindir)) if is_below else ""
    text = (_MOVABLE if is_below else _FIXED).format(
        mark=_MARK,
        bindir=shlex.quote(str(bindir)),
        prefix=shlex.quote(str(prefix.shown_path)),
        build=shlex.quote(build),
        below=shlex.quote(below),
    )
    (prefix.path / "bin").mkdir(exist_ok=True)
    executables.put(prefix.path / "bin", ["pycni"], text)


def check_link(prefix: Prefix, sbindir: Path) -> None:
    """Raise InstallError if another file has the link's name."""
    link = prefix.written(sbindir) / "pycni"
    if (link.exists() or link.is_symlink()) and not _is_ours(link, prefix):
        raise InstallError(
            f"{link} is of another program and was not changed: remove it, or choose another SBINDIR"
        )


def link(prefix: Prefix, sbindir: Path) -> None:
    """Link the command into a folder."""
    folder = prefix.written(sbindir)
    folder.mkdir(parents=True, exist_ok=True)
    prefix.record("links", sbindir / "pycni")
    new = folder / f".pycni-{os.getpid()}"
    new.symlink_to(prefix.shown_path / "bin/pycni")
    new.rename(folder / "pycni")


def unlink(prefix: Prefix) -> None:
    """Remove the links to this installation's command."""
    for shown in prefix.recorded("links"):
        path = prefix.written(shown)
        if path.is_symlink() and path.readlink() == prefix.shown_path / "bin/pycni":
            path.unlink()


def _is_ours(link: Path, prefix: Prefix) -> bool:
    """Return whether a link leads to the command of this or another installation of the suite."""
    if not link.is_symlink():
        return False
    target = link.readlink()
    if target == prefix.shown_path / "bin/pycni":
        return True
    command = prefix.written(target) if target.is_absolute() else link.parent / target
    return command.is_file() and _MARK.encode() in command.read_bytes()[:200]

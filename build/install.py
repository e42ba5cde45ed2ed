"""Install the suite, or remove it: `make install` and `make uninstall`.

Everything is put in place by a rename, the executables last, so that at any moment a runtime finds a
whole old plugin or a whole new one. See docs/install.md for the layout.
"""

from __future__ import annotations

import argparse
import fcntl
import filecmp
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cni import executables
from install_tree import InstallError, ensure_tree, list_trees, prune
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> int:
    """Do what the command line says; 1 with a line on stderr when it cannot be done."""
    options = _parser().parse_args()
    os.umask(0o022)
    try:
        (uninstall if options.uninstall else install)(options)
    except InstallError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"could not install: {error.strerror}: {error.filename}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindir", type=Path, required=True, help="where runtimes look for plugins")
    parser.add_argument("--prefix", type=Path, required=True, help="where the suite's own files go")
    parser.add_argument("--confdir", type=Path, required=True, help="where runtimes look for networks")
    parser.add_argument("--sbindir", type=Path, help="where to link the pycni command, if anywhere")
    parser.add_argument("--destdir", default="", help="put before all paths when files are written")
    parser.add_argument("--conf", action="append", default=[], help="a file of conf/ to copy, e.g. 10-bridge")
    parser.add_argument("--uninstall", action="store_true")
    return parser


def install(options: argparse.Namespace) -> None:
    """Make the tree, the executables and what else is asked for. Raises InstallError and OSError."""
    prefix, bindir = _at(options, options.prefix), _at(options, options.bindir)
    for folder in (prefix, bindir):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(prefix):
        tree = ensure_tree(prefix, options.prefix)
        names = packages(declared())
        _save_replaced(prefix, bindir, sorted(names))
        script = executables.plugin_script([str(tree)], str(tree / "cni/plugins.json"))
        executables.put(bindir, names, script)
        (prefix / "bin").mkdir(exist_ok=True)
        command = executables.command_script([str(tree)], str(options.bindir))
        executables.put(prefix / "bin", ["pycni"], command)
        prune(prefix, tree.name)
    _say(f"{tree}: the suite and all that it imports")
    _say(f"{options.bindir}: {', '.join(sorted(names))}")
    _link_command(options)
    for name in options.conf:
        _copy_conf(options, name)


def uninstall(options: argparse.Namespace) -> None:
    """Remove what `install` made; what it had replaced in BINDIR comes back. Networks are left."""
    prefix, bindir = _at(options, options.prefix), _at(options, options.bindir)
    if options.sbindir and _is_our_link(options):
        (_at(options, options.sbindir) / "pycni").unlink()
    for path in sorted(bindir.iterdir()) if bindir.is_dir() else []:
        if _is_ours(path, f"{options.prefix}/"):
            saved = prefix / "replaced" / path.name
            if saved.exists():
                shutil.move(saved, path)
            else:
                path.unlink()
            _say(f"{path}: {'what was there before' if path.exists() else 'removed'}")
    for folder in [*list_trees(prefix), prefix / "bin", prefix / "replaced"]:
        shutil.rmtree(folder, ignore_errors=True)
    if prefix.is_dir():
        (prefix / "lock").unlink(missing_ok=True)
        if not any(prefix.iterdir()):
            prefix.rmdir()
    _say(f"{options.prefix}: removed; files in {options.confdir} are yours and stay")


def _at(options: argparse.Namespace, path: Path) -> Path:
    return Path(f"{options.destdir}{path}") if options.destdir else path


def _save_replaced(prefix: Path, bindir: Path, names: list[str]) -> None:
    """Keep other suites' plugins of the same names, for `uninstall` to bring back."""
    for path in (bindir / name for name in names):
        if path.exists() and not _is_ours(path):
            (prefix / "replaced").mkdir(exist_ok=True)
            shutil.copy2(path, prefix / "replaced" / path.name)
            _say(f"{path}: replaced, the one that was there is kept in {prefix}/replaced")


def _is_ours(path: Path, prefix: str = "") -> bool:
    """Tell whether a file is an executable of this suite, installed to that prefix if one is given."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1000)
    return executables.MARK.encode() in start and prefix.encode() in start


def _link_command(options: argparse.Namespace) -> None:
    command = options.prefix / "bin/pycni"
    if options.sbindir is None:
        _say(f"{command}: the command; SBINDIR=/usr/local/sbin would link it there")
        return
    folder = _at(options, options.sbindir)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "pycni"
    if (link.exists() or link.is_symlink()) and not _is_our_link(options):
        raise InstallError(f"{link} is not ours and was left alone")
    new = folder / f".pycni-{os.getpid()}"
    new.symlink_to(command)
    new.rename(link)
    _say(f"{options.sbindir}/pycni: the command")


def _is_our_link(options: argparse.Namespace) -> bool:
    link = _at(options, options.sbindir) / "pycni"
    return link.is_symlink() and link.readlink() == options.prefix / "bin/pycni"


def _copy_conf(options: argparse.Namespace, name: str) -> None:
    source = ROOT / "conf" / f"{name.removesuffix('.conflist')}.conflist"
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in source.parent.glob("*.conflist")))
        raise InstallError(f"there is no conf/{source.name}; CONF is one of: {known}")
    folder = _at(options, options.confdir)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    new = folder / f".{source.name}.new"
    shutil.copyfile(source, new)
    try:
        # Unlike a rename, a link never replaces what a user has put or changed there.
        target.hardlink_to(new)
    except FileExistsError:
        if not filecmp.cmp(source, target, shallow=False):
            raise InstallError(f"{target} has other contents and was left alone") from None
    finally:
        new.unlink()
    _say(f"{options.confdir}/{source.name}: the network")


@contextmanager
def _locked(prefix: Path) -> Iterator[None]:
    with (prefix / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())

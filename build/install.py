"""Install the suite from its bundle, or remove it: `make install`, `make uninstall`, a tarball's ./install.

Part of the bundle, so that a machine without Python installs with it. Everything is put in place by a
rename, the executables last: at any moment a runtime finds a whole old plugin or a whole new one. See
docs/install.md for the layout.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from cni import executables
from cni.warm import control, units
from install_bindir import ensure_plugins, remove_plugins
from install_tree import InstallError, Prefix

# The interpreter that runs this is bin/python3 in it.
BUNDLE = Path(sys.executable).parents[1]

# CNI_PATH's default is the folder that this installation has put its plugins into.
_COMMAND = """\
#!/bin/sh
# Part of pycni: the command for people.
[ -n "${{CNI_PATH-}}" ] || export CNI_PATH={bindir}
exec {tree}/pycni "$@"
"""


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
        what = "uninstall" if options.uninstall else "install"
        sys.stderr.write(f"could not {what}: {error.strerror}: {error.filename}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    own = BUNDLE.parent
    prefix = own if (own / "bin/pycni").is_file() else Path("/opt/pycni")
    parser = argparse.ArgumentParser(prog="install", description="Install pycni, or remove it.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--install", action="store_true", help="put everything in place")
    what.add_argument("--uninstall", action="store_true", help="take it away, from each BINDIR it is in")
    place = parser.add_argument
    place("--bindir", type=Path, default=Path("/opt/cni/bin"), help="where runtimes look for plugins")
    place("--prefix", type=Path, default=prefix, help="where the suite's own files go")
    place("--confdir", type=Path, default=Path("/etc/cni/net.d"), help="where runtimes look for networks")
    place("--sbindir", type=Path, help="where to link the pycni command, if anywhere")
    place("--destdir", default="", help="put before all paths when files are written")
    place("--conf", action="append", default=[], help="a network to copy, such as 10-bridge")
    return parser


def install(options: argparse.Namespace) -> None:
    """Make the tree, the executables and what else is asked for. Raises InstallError and OSError."""
    prefix, bundle = Prefix(options.prefix, options.destdir), BUNDLE
    bindir = _at(options, options.bindir)
    bindir.mkdir(parents=True, exist_ok=True)
    names = sorted(json.loads((bundle / "plugins.json").read_text()))
    with prefix.locked(make=True):
        tree = prefix.ensure_tree(bundle)
        program = executables.launcher((tree / "launcher").read_bytes(), str(prefix.shown(tree)), tree.name)
        for line in ensure_plugins(prefix, options.bindir, names, program):
            _say(line)
        (prefix.path / "bin").mkdir(exist_ok=True)
        command = _COMMAND.format(
            bindir=shlex.quote(str(options.bindir)), tree=shlex.quote(str(prefix.shown(tree)))
        )
        executables.put(prefix.path / "bin", ["pycni"], command)
        for old in prefix.prune(tree):
            _say(f"{old}: nothing runs from it any more, removed")
        _say(f"{prefix.shown(tree)}: the suite and all that it imports")
        _say(f"{options.bindir}: {', '.join(names)}")
        _link_command(options, prefix)
    for name in options.conf:
        _copy_conf(options, bundle / "conf", name)


def uninstall(options: argparse.Namespace) -> None:
    """Remove what `install` made and end its servers; what it had replaced comes back. Networks are left.

    Raises InstallError and OSError; what was not removed then is by the next one.
    """
    prefix = Prefix(options.prefix, options.destdir)
    with prefix.locked(make=False):
        for link in prefix.noted("links"):
            if _is_our_link(_at(options, link), prefix):
                _at(options, link).unlink()
        for bindir in prefix.noted("bindirs"):
            for line in remove_plugins(prefix, bindir):
                _say(line)
        for unit in _units(options, prefix):
            _say(f"{unit}: starts what is gone now; disable it in systemd and remove it")
        if not options.destdir:
            _end_servers({tree.name for tree in prefix.trees()})
        prefix.remove()
    _say(f"{options.prefix}: removed; files in {options.confdir} are yours and stay")


def _end_servers(builds: set[str]) -> None:
    left = []
    for server in control.find():
        if server.build not in builds:
            continue
        if control.stop(server):
            _say(f"warm server of {server.build}: ended")
        else:
            left.append(str(server.pid))
    if left:
        # They serve what is in hand from files that stay for that.
        raise InstallError(f"warm servers have not ended, kill them and uninstall again: {', '.join(left)}")


def _units(options: argparse.Namespace, prefix: Prefix) -> list[Path]:
    """Give the units that `pycni warm units` has written for plugins of this installation."""
    launchers = [f"{bindir}/" for bindir in prefix.noted("bindirs")]
    paths = [units.FOLDER / name for name in (units.SOCKET_NAME, units.SERVICE_NAME)]
    return [
        path
        for path in paths
        if _at(options, path).is_file()
        and any(each in _at(options, path).read_text(errors="replace") for each in launchers)
    ]


def _at(options: argparse.Namespace, path: Path) -> Path:
    return Path(f"{options.destdir}{path}") if options.destdir else path


def _link_command(options: argparse.Namespace, prefix: Prefix) -> None:
    command = prefix.shown_path / "bin/pycni"
    if options.sbindir is None:
        _say(f"{command}: the command; SBINDIR=/usr/local/sbin would link it there")
        return
    folder = _at(options, options.sbindir)
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "pycni"
    if (link.exists() or link.is_symlink()) and not _is_our_link(link, prefix):
        raise InstallError(f"{link} is not ours and was left alone")
    prefix.note("links", options.sbindir / "pycni")
    new = folder / f".pycni-{os.getpid()}"
    new.symlink_to(command)
    new.rename(link)
    _say(f"{options.sbindir}/pycni: the command")


def _is_our_link(link: Path, prefix: Prefix) -> bool:
    return link.is_symlink() and link.readlink() == prefix.shown_path / "bin/pycni"


def _copy_conf(options: argparse.Namespace, networks: Path, name: str) -> None:
    source = networks / f"{name.removesuffix('.conflist')}.conflist"
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in networks.glob("*.conflist")))
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


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")

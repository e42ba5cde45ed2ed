"""Install the suite from its bundle, or remove it: `make install`, `make uninstall`, a tarball's ./install.

The installer is part of the bundle, so that it runs on a machine without Python. It checks everything that
can fail before it changes anything. It tests the plugins in private namespaces, and then renames each into
place: at any moment a runtime finds a complete old plugin or a complete new one. docs/install.md has the
layout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import install_attached
import install_checks
import install_command
import install_disk
import install_helpers
import install_report
import install_selftest
import install_units
from cni.errors import CniError
from cni.state import executables
from cni.warm import control
from install_bindir import Bindir, bindirs, list_older, refuse_lost_originals
from install_tree import InstallError, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The bundle's bin/python3 runs this file.
BUNDLE = Path(sys.executable).parents[1]
_BINDIR = Path("/opt/cni/bin")
# Below BINDIR, so that a copy or mount of BINDIR is complete. `cp -r BINDIR/*` would skip a hidden folder.
_BELOW_BINDIR = "pycni"
# The default PREFIX of release 0.1.0.
_EARLIER = Path("/opt/pycni")


def main() -> int:
    """Run the command line. Return 1 after a line on stderr if it fails."""
    options = _parser().parse_args()
    os.umask(0o022)
    try:
        _read_paths(options)
        (uninstall if options.uninstall else install)(options)
    except (InstallError, CniError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        action = "uninstall" if options.uninstall else "install"
        sys.stderr.write(f"could not {action}: {_describe(error)}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="install", description="Install pycni, or remove it.", allow_abbrev=False
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--install", action="store_true", help="install the suite")
    action.add_argument("--uninstall", action="store_true", help="remove the suite from every BINDIR")
    option = parser.add_argument
    option("--bindir", default=str(_BINDIR), help="folder in which runtimes search plugins")
    option("--prefix", help=f"folder for the suite's own files; default: BINDIR/{_BELOW_BINDIR}")
    option("--confdir", default="/etc/cni/net.d", help="folder in which runtimes search networks")
    option("--sbindir", help="folder for a link to the pycni command")
    option("--destdir", default="", help="prefix of all paths while files are written")
    option("--conf", action="append", default=[], help="network to copy, such as 10-bridge")
    option("--units", choices=("auto", "yes", "no"), default="auto", help="whether to install systemd units")
    option("--no-self-test", action="store_true", help="install without testing the plugins first")
    option(
        "--attached",
        choices=("detach", "leave"),
        help="what to do with attachments that only this suite can delete",
    )
    return parser


def _read_paths(options: argparse.Namespace) -> None:
    """Turn options into paths. Raises InstallError for an invalid one."""
    own = BUNDLE.parent
    if options.prefix is None:
        is_installed = (own / "bin/pycni").is_file()
        options.prefix = str(own) if is_installed else os.path.join(options.bindir, _BELOW_BINDIR)  # noqa: PTH118
    named = {}
    for name in ("bindir", "prefix", "confdir", "sbindir", "destdir"):
        text = getattr(options, name)
        if text is None or (name == "destdir" and not text):
            continue
        # normpath keeps two slashes at the start.
        normal = os.path.normpath(f"/{text.lstrip('/')}" if text.startswith("/") else text)
        named[name.upper()] = Path(normal)
        setattr(options, name, str(normal).rstrip("/") if name == "destdir" else Path(normal))
    install_checks.check_paths(named)


def install(options: argparse.Namespace) -> None:
    """Install tree, executables, command, networks and units. Raises InstallError, CniError, OSError."""
    prefix, bundle = Prefix(options.prefix, options.destdir), BUNDLE
    bindir = Bindir(prefix, options.bindir)
    names = sorted(json.loads((bundle / "plugins.json").read_text()))
    _check(options, prefix, bindir, names)
    why_no_units = install_units.why_not(options.units, options.destdir, options.bindir)
    with _removing_if_failed(prefix, bindir), prefix.locked(make=True), _created(bindir.path):
        with install_disk.folders_locked([bindir.path]):
            tree = _put_plugins(options, prefix, bindir, names)
        for old in prefix.prune(tree):
            _say(f"{old}: nothing runs from it any more, removed")
        _say(f"{prefix.shown(tree)}: the suite and its libraries")
        _say(f"{options.bindir}: {', '.join(names)}")
        install_command.write(prefix, options.bindir, tree.name)
        if options.sbindir:
            install_command.link(prefix, options.sbindir)
            _say(f"{options.sbindir}/pycni: the command")
        else:
            _say(f"{options.prefix}/bin/pycni: the command; to link it, install with SBINDIR=/usr/local/sbin")
    for name in options.conf:
        _copy_conf(options, bundle / "conf", name)
    if not options.destdir:
        for line in install_report.describe(options.bindir, options.confdir, names):
            _say(line)
        if options.prefix != _EARLIER and Prefix(_EARLIER).trees():
            _say(f"{_EARLIER}: an earlier installation; make uninstall PREFIX={_EARLIER} removes it")
    if why_no_units:
        _say(f"no systemd units: {why_no_units}")
    units = () if why_no_units else install_units.install(prefix, options.bindir / names[0])
    helpers = () if options.destdir else install_helpers.replace(prefix)
    for line in (*units, *helpers):
        _say(line)


def _check(options: argparse.Namespace, prefix: Prefix, bindir: Bindir, names: Sequence[str]) -> None:
    """Raise InstallError if the installation would fail."""
    written = [bindir.path, prefix.path]
    others = [*([options.sbindir] if options.sbindir else []), *([options.confdir] if options.conf else [])]
    install_checks.check_writable([*written, *map(prefix.written, others)])
    if not options.destdir:
        install_checks.check_executable(written)
    install_checks.check_names(bindir.path, names)
    install_checks.check_networks(BUNDLE / "conf", prefix.written(options.confdir), options.conf)
    if options.sbindir:
        install_command.check_link(prefix, options.sbindir)
    install_checks.check_space(install_checks.needs(prefix, BUNDLE, bindir.path, names))


def _put_plugins(options: argparse.Namespace, prefix: Prefix, bindir: Bindir, names: Sequence[str]) -> Path:
    """Install the tree, test the launchers and put them in place. Return the tree."""
    obsolete = prefix.plugin_names() - set(names)
    is_new = not prefix.has_tree((BUNDLE / "build").read_text())
    tree = prefix.ensure_tree(BUNDLE)
    shown = prefix.shown(tree)
    below = str(shown.relative_to(options.bindir)) if shown.is_relative_to(options.bindir) else ""
    program = executables.launcher((tree / "launcher").read_bytes(), str(shown), tree.name, below)
    # A user's copy of a plugin under another name gets the same build as the plugins.
    everything = [*names, *bindir.list_aliases({*names, *obsolete})]
    try:
        with bindir.staged(everything, program) as stage:
            _test_plugins(options, stage)
            prefix.record("bindirs", options.bindir)
            for line in bindir.save(names):
                _say(line)
            bindir.switch(stage, everything)
    except BaseException:
        # An interrupt may come after the launchers are in place.
        if is_new and not bindir.executes(shown):
            prefix.remove_tree(tree)
        raise
    for line in bindir.remove(keep={*everything, *bindir.list_links(obsolete)}):
        _say(line)
    return tree


def _test_plugins(options: argparse.Namespace, stage: Path) -> None:
    reason = "DESTDIR is set" if options.destdir else "SELFTEST=no" if options.no_self_test else ""
    reason = reason or install_selftest.why_not()
    if reason:
        _say(f"self-test: skipped, as {reason}")
        return
    try:
        _say(f"self-test: {install_selftest.run_selftest(stage)}")
    except install_selftest.SelfTestError as error:
        raise InstallError(
            f"the self-test has failed, everything is as it was before: {error}\n"
            "SELFTEST=no (--no-self-test) installs without it"
        ) from error


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create a folder, and remove it again if the block fails."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


@contextmanager
def _removing_if_failed(prefix: Prefix, bindir: Bindir) -> Iterator[None]:
    """Remove a new prefix again if the installation fails."""
    missing = [each for each in (prefix.path, *prefix.path.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        if missing:
            for line in bindir.remove():
                _say(line)
            prefix.remove()
            for each in missing:
                with suppress(OSError):
                    each.rmdir()
        raise


def uninstall(options: argparse.Namespace) -> None:
    """Remove the installed files, stop the servers, restore replaced plugins. Networks remain.

    Raises InstallError, CniError and OSError. The next `uninstall` removes the remaining files.
    """
    prefix = Prefix(options.prefix, options.destdir)
    if prefix.path.exists():
        install_checks.check_writable([prefix.path])
    with prefix.locked(make=False):
        folders = bindirs(prefix)
        with install_disk.folders_locked(each.path for each in folders):
            refuse_lost_originals(prefix)
            if not options.destdir:
                _handle_attached(options, folders)
            for line in install_units.remove(prefix, [each.shown for each in folders]):
                _say(line)
            install_command.unlink(prefix)
            for bindir in folders:
                for line in bindir.remove():
                    _say(line)
            if not options.destdir:
                _end_servers(prefix)
            prefix.remove()
    for path in list_older(prefix):
        _say(f"{path}: kept, an original that a later one has superseded")
    if not options.destdir:
        for line in install_attached.describe_rest():
            _say(line)
    _say(f"{options.prefix}: removed; files in {options.confdir} are yours and stay")


def _handle_attached(options: argparse.Namespace, folders: Sequence[Bindir]) -> None:
    names = {name for bindir in folders for name in bindir.list_own()}
    saved = {bindir.shown: bindir.saved for bindir in folders if bindir.list_own()}
    if not names:
        return
    try:
        lost = install_attached.find_lost(install_attached.find_successors(names, saved))
    except CniError as error:
        if options.attached != "leave":
            raise InstallError(f"{error}\nUninstall with ATTACHED=leave to skip this check.") from error
        lost = []
    if options.attached == "detach":
        for line in install_attached.detach(lost, saved):
            _say(line)
    elif options.attached == "leave":
        for each in lost:
            _say(f"left: {each}")
    else:
        install_attached.refuse(lost)


def _end_servers(prefix: Prefix) -> None:
    builds, running = {tree.name for tree in prefix.trees()}, []
    for server in control.find():
        if server.build not in builds:
            continue
        if control.stop(server):
            _say(f"warm server of {server.build}: ended")
        else:
            running.append(str(server.pid))
    if running:
        # Their files remain, because running calls need them.
        raise InstallError(
            f"warm servers have not ended, kill them and uninstall again: {', '.join(running)}"
        )
    for line in install_helpers.stop(prefix):
        _say(line)


def _copy_conf(options: argparse.Namespace, networks: Path, name: str) -> None:
    source = networks / f"{name.removesuffix('.conflist')}.conflist"
    folder = Path(f"{options.destdir}{options.confdir}")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    new = folder / f".{source.name}.new"
    shutil.copyfile(source, new)
    try:
        # Unlike a rename, a link never replaces a file that a user has created meanwhile.
        with suppress(FileExistsError):
            target.hardlink_to(new)
    finally:
        new.unlink()
    _say(f"{options.confdir}/{source.name}: the network")


def _describe(error: OSError) -> str:
    """Return reason and file of an error; shutil collects the errors of many files in one."""
    if error.strerror is None and error.args and isinstance(error.args[0], list) and error.args[0]:
        _, target, reason = error.args[0][0]
        return f"{reason} ({target})"
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")

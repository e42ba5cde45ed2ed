"""Install and enable systemd units of the warm server and of helpers if systemd runs; remove them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import install_disk
from cni.errors import CniError
from cni.kernel.child import find, run
from cni.runtime import watch_unit
from cni.service import control
from cni.service import units as helper_units
from cni.warm import units
from install_tree import InstallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from install_tree import Prefix

# Exists if and only if systemd is the init system: sd_booted(3).
_SYSTEMD = Path("/run/systemd/system")
# The first line of units that an installation has written, also of release 0.1.0.
MARK = "# Part of pycni: each installation writes this file anew. Change it by `systemctl edit`.\n"
_FILES = (
    units.SOCKET_NAME,
    units.SERVICE_NAME,
    helper_units.SOCKET_NAME,
    helper_units.SERVICE_NAME,
    watch_unit.NAME,
)
_TIMEOUT_S = 60


def why_not(wanted: str, destdir: str, bindir: Path) -> str:
    """Return why no units are installed, "" if they are. Raises InstallError if UNITS=yes is not possible."""
    reason = ""
    if wanted == "no":
        return "UNITS=no"
    if destdir:
        reason = "DESTDIR is set"
    elif not _SYSTEMD.is_dir():
        reason = "systemd does not run here"
    elif not re.fullmatch(r"[\w/.+@-]+", str(bindir)):
        reason = f"{bindir} has characters that a unit cannot have in a path"
    if reason and wanted == "yes":
        raise InstallError(f"UNITS=yes, but {reason}")
    return reason


def install(prefix: Prefix, launcher: Path) -> Iterator[str]:
    """Write, enable and start the units; `launcher` is an installed plugin. Yield lines to print.

    A helper without work ends after a minute. The unit of `pycni watch` is enabled by the administrator; an
    installation restarts it if it runs. Units that a user has written are not changed. Raises InstallError if
    systemd refuses.
    """
    command = prefix.shown_path / "bin/pycni"
    texts = units.units(launcher) | helper_units.units(command) | watch_unit.units(command)
    for name, text in texts.items():
        path = prefix.written(units.FOLDER / name)
        if path.exists() and not _is_ours(path):
            yield f"{path}: was not written by an installation, and is not changed"
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{name}.new")
        new.write_text(MARK + text)
        new.rename(path)
    install_disk.sync_folder(prefix.written(units.FOLDER))
    _systemctl("daemon-reload")
    sockets, services = _instances(helper_units.SOCKET_NAME), _instances(helper_units.SERVICE_NAME)
    _systemctl("enable", units.SOCKET_NAME, units.SERVICE_NAME, *sockets)
    # The socket's name contains the build. A service of an earlier build ends with its socket.
    _systemctl("restart", units.SOCKET_NAME)
    # A restart would end helpers, with sockets that containers send to. `install_helpers` replaces them.
    _systemctl("start", units.SERVICE_NAME, *sockets, *services)
    _systemctl("try-restart", watch_unit.NAME)
    yield f"{', '.join([units.SOCKET_NAME, units.SERVICE_NAME, *sockets])}: enabled and started"
    yield f"{watch_unit.NAME}: written; to enable it, run systemctl enable --now {watch_unit.NAME}"


def remove(prefix: Prefix, bindirs: list[Path]) -> Iterator[str]:
    """Disable and remove the units that start plugins of `bindirs`. Yield lines to print.

    Units that a user has written are only reported. Raises InstallError if systemd refuses.
    """
    paths = [prefix.written(units.FOLDER / name) for name in _FILES]
    folders = [*bindirs, prefix.shown_path]
    starting = [path for path in paths if path.is_file() and _starts(path, folders)]
    ours = [path for path in starting if _is_ours(path)]
    for path in starting:
        if path not in ours:
            yield f"{units.FOLDER / path.name}: starts a removed program: disable the unit and remove it"
    if not ours:
        return
    if _SYSTEMD.is_dir() and not prefix.has_destdir:
        _systemctl("disable", "--now", *(name for path in ours for name in _instances(path.name)))
    for path in ours:
        path.unlink()
    if _SYSTEMD.is_dir() and not prefix.has_destdir:
        _systemctl("daemon-reload")
    yield f"{', '.join(path.name for path in ours)}: stopped, disabled and removed"


def _instances(file: str) -> list[str]:
    """Return the names of a unit: a template has one for each helper."""
    return [file.replace("@", f"@{name}") for name in control.list_helpers()] if "@" in file else [file]


def _is_ours(path: Path) -> bool:
    return path.read_text(errors="replace").startswith(MARK)


def _starts(path: Path, folders: list[Path]) -> bool:
    text = path.read_text(errors="replace")
    return any(f"{folder}/" in text for folder in folders)


def _systemctl(*arguments: str) -> None:
    command = ["systemctl", *arguments]
    try:
        done = run([find(command[0]) or command[0], *arguments], timeout_s=_TIMEOUT_S)
    except CniError as error:
        raise InstallError(f"{' '.join(command)}: {error}") from error
    if done.status:
        reason = done.stderr.strip() or f"status {done.status}"
        raise InstallError(f"{' '.join(command)} has failed: {reason}. UNITS=no installs without units")

"""Find networks in a folder of configuration files, by libcni's rules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.runtime.network import parse_network, parse_plugin, parse_single

if TYPE_CHECKING:
    from cni.runtime.network import Network, PluginConf

DEFAULT_FOLDER = Path("/etc/cni/net.d")
_LIST = (".conflist",)
_SINGLE = (".conf", ".json")


class Broken(NamedTuple):
    """A file that is not a valid network, and the error."""

    file: str
    error: CniError


def list_files(folder: Path) -> list[Path]:
    """Return the configuration files by precedence: lists first, then single plugins.

    A missing folder has none. Raises CniError 5 if the folder cannot be read.
    """
    return [*_files(folder, _LIST), *_files(folder, _SINGLE)]


def find(folder: Path, name: str) -> Network:
    """Return the first network with that name. Raises CniError 7 if there is none.

    A broken file before it is an error too (CniError 6 or 7 that names the file), as in libcni: the meaning
    of a name must not depend on which files are readable.
    """
    files = list_files(folder)
    names = []
    for file in files:
        network = load_file(file)
        if network.name == name:
            return network
        names.append(network.name)
    if not files:
        raise CniError(
            Code.INVALID_CONFIG,
            f"no net configurations found in {folder}",
            "Put a file NAME.conflist there, or set NETCONFPATH to another folder.",
        )
    raise CniError(
        Code.INVALID_CONFIG,
        f'no net configuration with name "{name}" in {folder}',
        f"configured are: {', '.join(names)}",
    )


def load_all(folder: Path) -> list[Network | Broken]:
    """Return all networks of a folder, with a `Broken` in place of each invalid file."""
    return [_load_or_error(file) for file in list_files(folder)]


def _load_or_error(file: Path) -> Network | Broken:
    try:
        return load_file(file)
    except CniError as error:
        return Broken(str(file), error)


def load_file(file: Path) -> Network:
    """Read one network, including plugins in the folder with the network's name beside the file."""
    text = _read(file)
    if file.name.endswith(_SINGLE):
        return parse_single(text, str(file))
    network = parse_network(text, str(file))
    if not network.load_only_inlined_plugins:
        network = network.with_plugins(_plugins_beside(file.parent, network.name))
    if not network.plugins:
        raise CniError(
            Code.INVALID_CONFIG,
            f"no plugin configs found for {file}",
            f'List them under "plugins", or put them into {file.parent / network.name}/*.conf.',
        )
    return network


def _plugins_beside(folder: Path, name: str) -> list[PluginConf]:
    # A name with a slash leads out of the folder. Such a network is refused when it is used.
    if "/" in name or name in {".", ".."}:
        return []
    return [parse_plugin(_read(file), str(file)) for file in _files(folder / name, (".conf",))]


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"cannot list {folder}: {error.strerror}") from error
    return [folder / name for name in sorted(names) if name.endswith(endings)]


def _read(file: Path) -> bytes:
    try:
        # Reading a FIFO would block.
        if file.is_file() or not file.exists():
            return file.read_bytes()
        raise CniError(Code.IO_FAILURE, f"error reading {file}: not a regular file")
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"error reading {file}: {error.strerror}") from error

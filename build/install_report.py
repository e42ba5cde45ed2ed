"""Warn about runtimes that do not search BINDIR, and about networks whose plugins are missing."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError
from cni.runtime.conflists import Broken, load_all
from cni.runtime.network import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.runtime.network import Network

Toml = dict[str, Any]

_OPT = (Path("/opt/cni/bin"),)
_PODMAN = tuple(
    Path(f"{each}/cni") for each in ("/usr/local/libexec", "/usr/libexec", "/usr/local/lib", "/usr/lib")
)
_CRIO = (*_OPT, Path("/usr/libexec/cni"))
# Default folders of networks, which are not in the configuration files read here.
_CONFDIRS = (
    "/etc/cni/net.d",
    "/etc/cni/multus/net.d",
    "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    "/var/lib/rancher/rke2/agent/etc/cni/net.d",
    "/var/snap/microk8s/current/args/cni-network",
)
_SNAP = {"SNAP_DATA": "/var/snap/microk8s/current", "SNAP": "/snap/microk8s/current"}
# PATH of the runtimes' own programs.
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Searching(NamedTuple):
    """A runtime of this machine: the folders that it searches for plugins, and the file that sets them."""

    name: str
    folders: tuple[Path, ...]
    decided_by: str
    confdirs: tuple[Path, ...] = ()


def describe(bindir: Path, confdir: Path, plugins: Sequence[str]) -> Iterator[str]:
    """Yield warnings about runtimes that find other plugins first, and networks that lack plugins."""
    runtimes = find_runtimes()
    for each in runtimes:
        yield from _describe_runtime(each, bindir, plugins)
    folders = {confdir, *map(Path, _CONFDIRS), *(path for each in runtimes for path in each.confdirs)}
    elsewhere = dict.fromkeys(path for each in runtimes for path in each.folders if path != bindir)
    for folder in sorted(folders):
        try:
            networks = load_all(folder)
        except CniError as error:
            yield f"warning: {error}"
            continue
        for network in networks:
            if isinstance(network, Broken):
                yield f"warning: {network.error}"
            else:
                yield from _describe_network(network, bindir, list(elsewhere))


def find_runtimes() -> list[Searching]:
    """Return the runtimes of this machine, from their configuration files."""
    return [*_containerd(), *_crio(), *_podman()]


def _describe_runtime(runtime: Searching, bindir: Path, plugins: Sequence[str]) -> Iterator[str]:
    searched = ", ".join(map(str, runtime.folders))
    if not any(_is_same(folder, bindir) for folder in runtime.folders):
        yield (
            f"warning: {runtime.name} does not look in {bindir}, only in {searched} ({runtime.decided_by}): "
            f"install with BINDIR={runtime.folders[0]}, or change that"
        )
        return
    at = next(at for at, folder in enumerate(runtime.folders) if _is_same(folder, bindir))
    before = runtime.folders[:at]
    if not before:
        return
    hidden = [f"{folder / name}" for folder in before for name in plugins if (folder / name).exists()]
    taken = f"and takes {', '.join(hidden)}" if hidden else "where none of these plugins is now"
    yield (
        f"warning: {runtime.name} looks in {', '.join(map(str, before))} before {bindir}, {taken} "
        f"({runtime.decided_by}): install with BINDIR={before[-1]}, or put {bindir} first there"
    )


def _describe_network(network: Network, bindir: Path, elsewhere: Sequence[Path]) -> Iterator[str]:
    missing = [name for name in _types(network) if not (bindir / name).is_file()]
    if not missing:
        return
    where = {name: next((path for path in elsewhere if (path / name).is_file()), None) for name in missing}
    elsewhere_named = [f"{name} is in {path}" for name, path in where.items() if path]
    more = f" ({', '.join(elsewhere_named)})" if elsewhere_named else ""
    yield (
        f"warning: network {network.name} also needs {', '.join(missing)}: "
        f"not in {bindir}{more}; {network.file}"
    )


def _types(network: Network) -> list[str]:
    """Return the plugins that a network names, IPAM plugins and delegates included."""
    types: list[str] = []
    for plugin in network.plugins:
        folded = fold(plugin.document)
        types.append(plugin.type)
        for inner in (folded.get("ipam"), folded.get("delegate")):
            type_ = fold(inner).get("type") if isinstance(inner, dict) else None
            if isinstance(type_, str) and type_ and "/" not in type_:
                types.append(type_)
    return list(dict.fromkeys(each for each in types if "/" not in each))


def _containerd() -> Iterator[Searching]:
    config_files = {
        "containerd": Path("/etc/containerd/config.toml"),
        "k3s": Path("/var/lib/rancher/k3s/agent/etc/containerd/config.toml"),
        "rke2": Path("/var/lib/rancher/rke2/agent/etc/containerd/config.toml"),
        "microk8s": Path("/var/snap/microk8s/current/args/containerd.toml"),
    }
    for name, file in config_files.items():
        if not file.is_file() and (name != "containerd" or not _has_program("containerd")):
            continue
        sections = [section for each in _with_imports(file) for section in _cni_sections(each)]
        folders = _last(sections, ("bin_dirs", "bin_dir"))
        confdirs = _last(sections, ("conf_dir",))
        decided = str(file) if folders else "its default"
        yield Searching(name, folders or _OPT, decided, confdirs)


def _with_imports(file: Path) -> Iterator[Toml]:
    main = _read(file)
    yield main
    for pattern in main.get("imports") or []:
        if isinstance(pattern, str):
            for each in sorted(Path("/").glob(str(file.parent / pattern).lstrip("/"))):
                yield _read(each)


def _cni_sections(config: Toml) -> Iterator[Toml]:
    plugins = config.get("plugins")
    names = ("cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
    for name in names:
        section = plugins.get(name) if isinstance(plugins, dict) else None
        cni = section.get("cni") if isinstance(section, dict) else None
        if isinstance(cni, dict):
            yield cni


def _crio() -> Iterator[Searching]:
    files = [Path("/etc/crio/crio.conf"), *sorted(Path("/etc/crio/crio.conf.d").glob("*"))]
    configs = [_read(each) for each in files if each.is_file()]
    if not configs and not _has_program("crio"):
        return
    sections = [each["crio"]["network"] for each in configs if _is_table(each, "crio", "network")]
    folders = _last(sections, ("plugin_dirs", "plugin_dir"))
    decided = "plugin_dirs in /etc/crio" if folders else "its default"
    yield Searching("CRI-O", folders or _CRIO, decided, _last(sections, ("network_dir",)))


def _podman() -> Iterator[Searching]:
    if not _has_program("podman"):
        return
    files = [Path("/usr/share/containers/containers.conf"), Path("/etc/containers/containers.conf")]
    files += sorted(Path("/etc/containers/containers.conf.d").glob("*.conf"))
    configs = [_read(each) for each in files if each.is_file()]
    sections = [each["network"] for each in configs if _is_table(each, "network")]
    if any(each.get("network_backend") == "netavark" for each in sections[-1:]):
        return
    folders = _last(sections, ("cni_plugin_dirs",))
    decided = "cni_plugin_dirs in containers.conf" if folders else "its default"
    yield Searching("podman", folders or (*_PODMAN, *_OPT), decided, _last(sections, ("network_config_dir",)))


def _last(sections: Iterable[Toml], keys: Sequence[str]) -> tuple[Path, ...]:
    """Return the folders in the last section that has one of the keys."""
    folders: tuple[Path, ...] = ()
    for section in sections:
        for key in keys:
            value = section.get(key)
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            paths = tuple(_path(each) for each in texts if isinstance(each, str) and each)
            if paths:
                folders = paths
                break
    return folders


def _path(text: str) -> Path:
    return Path(re.sub(r"\$\{(\w+)\}", lambda match: _SNAP.get(match[1], match[0]), text))


def _is_table(config: Toml, *keys: str) -> bool:
    inner: Any = config
    for key in keys:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return isinstance(inner, dict)


def _read(file: Path) -> Toml:
    """Return a configuration; {} for an invalid file, which its runtime reports."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}


def _has_program(name: str) -> bool:
    return shutil.which(name, path=_PROGRAMS) is not None


def _is_same(one: Path, other: Path) -> bool:
    return one == other or os.path.realpath(one) == os.path.realpath(other)

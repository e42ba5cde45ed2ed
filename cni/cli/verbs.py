"""The verbs `pycni add, check, del, gc, status, version`.

Modules that only some verbs need are imported in functions.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cni import __version__, delegate, versions
from cni.cli.output import print_json, warn, write
from cni.cli.settings import container_id, require_netns
from cni.convert import dumps
from cni.errors import CniError, Code, ErrorList
from cni.operations import runs
from cni.request import Attachment
from cni.runtime import conflists
from cni.runtime.cache import Cache
from cni.runtime.chain import Runtime
from cni.runtime.lint import list_overlaps, list_warnings
from cni.runtime.network import parse_network

if TYPE_CHECKING:
    from cni.cli.settings import Settings
    from cni.runtime.derive import RuntimeArgs
    from cni.runtime.network import Network


def add(settings: Settings, name: str, netns: str, timeout_s: float, *, undo: bool) -> None:
    """Attach a namespace to a network and print the result, nothing else."""
    network = conflists.find(settings.conf_folder, name)
    require_netns(netns)
    result = _runtime(settings, timeout_s).add(network, settings.runtime_args(netns), undo=undo)
    write(dumps(result).decode() + ("\n" if sys.stdout.isatty() else ""))
    _warn_of_overlaps(settings, network)


def _warn_of_overlaps(settings: Settings, network: Network) -> None:
    for each in list_overlaps(network, _list_configured(settings)):
        warn(network.name, each)


def _list_configured(settings: Settings) -> list[Network]:
    loaded = conflists.load_all(settings.conf_folder)
    return [each for each in loaded if not isinstance(each, conflists.Broken)]


def check(settings: Settings, name: str, netns: str, timeout_s: float) -> None:
    """Compare an attachment with the result of its ADD."""
    network = conflists.find(settings.conf_folder, name)
    require_netns(netns)
    _warn_if_disabled(network, "disableCheck", is_set=network.disable_check)
    _runtime(settings, timeout_s).check(network, settings.runtime_args(netns))


def delete(settings: Settings, name: str, netns: str, timeout_s: float) -> None:
    """Detach. If the network is no longer configured, use its configuration at ADD."""
    runs.remove_stale()
    runtime = _runtime(settings, timeout_s)
    runtime_args = settings.runtime_args(netns)
    try:
        network = conflists.find(settings.conf_folder, name)
    except CniError:
        cached = _cached_network(runtime.cache, name, runtime_args)
        if cached is None:
            raise
        network = cached
    runtime.delete(network, runtime_args)


def _cached_network(cache: Cache, name: str, runtime_args: RuntimeArgs) -> Network | None:
    attachment = Attachment(runtime_args.container_id, runtime_args.ifname)
    try:
        entry = cache.read(name, attachment)
        network = parse_network(entry.config, "in the result cache") if entry else None
    except CniError:
        return None
    return network if network and network.plugins else None


def gc(settings: Settings, name: str, timeout_s: float, *, dead_only: bool) -> None:
    """Remove all attachments of a network, or only those that are proven to be gone."""
    from cni.runtime.alive import list_alive

    network = conflists.find(settings.conf_folder, name)
    runtime = _runtime(settings, timeout_s)
    _warn_if_disabled(network, "disableGC", is_set=network.disable_gc)
    ended = {container_id(each) for each in runs.remove_stale()}
    alive = list_alive(runtime, network) if dead_only else set()
    runtime.gc(network, {each for each in alive if each.container_id not in ended})


def _warn_if_disabled(network: Network, key: str, *, is_set: bool) -> None:
    if is_set:
        warn(network.name, f'nothing was done, because "{key}" is set in {network.file}')


def plan_gc(settings: Settings, name: str, timeout_s: float, *, dead_only: bool, as_json: bool) -> None:
    """Print what `gc` would remove and why."""
    from cni.cli import gc_plan
    from cni.runtime.alive import list_alive
    from cni.runtime.gc_plan import plan

    network = conflists.find(settings.conf_folder, name)
    runtime = _runtime(settings, timeout_s)
    _warn_if_disabled(network, "disableGC", is_set=network.disable_gc)
    gc_plan.show(
        plan(runtime, network, list_alive(runtime, network) if dead_only else set()),
        name,
        as_json=as_json,
    )


def status(settings: Settings, name: str, timeout_s: float) -> None:
    """Run STATUS of the plugins of a network, and warn about likely mistakes in its file."""
    network = conflists.find(settings.conf_folder, name)
    runtime = _runtime(settings, timeout_s)
    for each in list_warnings(runtime, network, _list_configured(settings)):
        warn(network.name, each)
    runtime.status(network)


def version(settings: Settings, name: str, timeout_s: float, *, as_json: bool) -> None:
    """Print the spec versions of pycni or of each plugin of a network.

    Raises CniError 1 if a plugin does not support the network's version.
    """
    if not name:
        print_own_version(as_json=as_json)
        return
    network = conflists.find(settings.conf_folder, name)
    runtime = _runtime(settings, timeout_s)
    known: dict[str, tuple[str, ...]] = {}
    errors = ErrorList()
    for type_ in dict.fromkeys(plugin.type for plugin in network.plugins):
        errors.attempt(_ask_version, runtime, network, type_, known)
    if as_json and not errors.errors:
        listed = [{"type": type_, "supportedVersions": list(supported)} for type_, supported in known.items()]
        print_json({"name": network.name, "cniVersion": network.cni_version, "plugins": listed})
    elif not as_json:
        for type_, supported in known.items():
            write(f"{type_}: {' '.join(supported)}  ({delegate.find(type_, settings.path)})\n")
    errors.raise_any()


def _ask_version(runtime: Runtime, network: Network, type_: str, known: dict[str, tuple[str, ...]]) -> None:
    known[type_] = runtime.versions(type_)
    if network.cni_version not in known[type_]:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f'plugin {type_} does not support config version "{network.cni_version}"',
            f"Set cniVersion in {network.file} to one of: {', '.join(known[type_])}.",
        )


def print_own_version(*, as_json: bool) -> None:
    """Print the version of this suite and the spec versions that it supports."""
    if as_json:
        print_json({"pycni": __version__, "supportedVersions": list(versions.SUPPORTED)})
    else:
        write(f"pycni {__version__}, CNI spec versions {' '.join(versions.SUPPORTED)}\n")


def _runtime(settings: Settings, timeout_s: float) -> Runtime:
    return Runtime(settings.path, settings.env, Cache(), timeout_s)

"""A network as configured: a list of plugins and what goes for all of them. Nothing here does I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cni import versions
from cni.conf import decode_object
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PluginConf:
    """One plugin of a network; `document` is its configuration as written, not yet for any call."""

    type: str
    name: str
    capabilities: frozenset[str]
    document: Json

    @property
    def ipam(self) -> str:
        """The type of its IPAM plugin, "" without one."""
        ipam = fold(self.document).get("ipam")
        type_ = fold(ipam).get("type") if isinstance(ipam, dict) else None
        return type_ if isinstance(type_, str) else ""


@dataclass(frozen=True, slots=True)
class Network:
    """A configured network. `text` is the list as JSON and goes into the result cache."""

    name: str
    cni_version: str
    plugins: tuple[PluginConf, ...]
    text: bytes
    file: str = ""
    disable_check: bool = False
    disable_gc: bool = False
    load_only_inlined_plugins: bool = False

    def has(self, verb: str) -> bool:
        """Tell whether the spec version of the network knows the verb."""
        return versions.at_least(self.cni_version, versions.FIRST_WITH_VERB.get(verb, versions.OLDEST))

    def with_plugins(self, more: Iterable[PluginConf]) -> Network:
        """Give the same network with further plugins at the end of its chain."""
        return replace(self, plugins=(*self.plugins, *more))


def parse_network(text: bytes, file: str) -> Network:
    """Read a configuration list (`.conflist`). Raises CniError 6 or 7; every message names the file.

    The list may be without plugins: they can lie in a folder of their own, see `cni.runtime.conflists`.
    """
    document = decode_object(text, file)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(file, "no network name", '"name" must be a text that is not empty')
    inlined_only = _flag(document, "loadOnlyInlinedPlugins", file)
    if "plugins" not in document and inlined_only:
        raise _wrong(file, "`loadOnlyInlinedPlugins` is true, and no 'plugins' key", "list the plugins here")
    return Network(
        name,
        _version(document, file),
        _plugins(document, file) if "plugins" in document else (),
        text,
        file,
        _flag(document, "disableCheck", file),
        _flag(document, "disableGC", file),
        inlined_only,
    )


def parse_plugin(text: bytes, file: str) -> PluginConf:
    """Read the configuration of one plugin (`.conf`). Raises CniError 6 or 7 naming the file."""
    return _plugin(decode_object(text, file), file)


def parse_single(text: bytes, file: str) -> Network:
    """Read a configuration of one plugin (`.conf`, `.json`) as a network with just that one."""
    plugin = parse_plugin(text, file)
    version = fold(plugin.document).get("cniversion", "")
    if not plugin.name:
        raise _wrong(file, "no network name", '"name" must be a text that is not empty')
    document = {"cniVersion": version, "name": plugin.name, "plugins": [plugin.document]}
    return parse_network(compact(document), file)


def compact(document: object) -> bytes:
    """Give JSON as the Go library writes it: keys sorted, no spaces."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode(
        errors="replace"
    )


def _plugins(document: Json, file: str) -> tuple[PluginConf, ...]:
    listed = document["plugins"]
    if not isinstance(listed, list):
        raise _wrong(file, f'"plugins" is {json.dumps(listed)}', "it must be a list of objects")
    if not listed:
        raise _wrong(file, "no plugins in list", '"plugins" must have at least one')
    return tuple(_plugin(each, f"{file}: plugins[{number}]") for number, each in enumerate(listed))


def _plugin(document: object, where: str) -> PluginConf:
    if not isinstance(document, dict):
        raise _wrong(where, f"{json.dumps(document)} is no plugin", "it must be an object")
    folded = fold(document)
    type_, name, capabilities = folded.get("type"), folded.get("name") or "", folded.get("capabilities") or {}
    if not isinstance(type_, str) or not type_:
        raise _wrong(where, "missing 'type'", '"type" names the executable of the plugin')
    if not isinstance(name, str):
        raise _wrong(where, f'"name" is {json.dumps(name)}', "it must be a text")
    if not isinstance(capabilities, dict) or not all(isinstance(on, bool) for on in capabilities.values()):
        raise _wrong(where, f'"capabilities" is {json.dumps(capabilities)}', 'such as {"portMappings": true}')
    return PluginConf(type_, name, frozenset(key for key, on in capabilities.items() if on), document)


def fold(document: Json) -> Json:
    """Give an object with its keys in small letters and without nulls, as keys match in any case."""
    return {key.lower(): value for key, value in document.items() if value is not None}


def _flag(document: Json, key: str, file: str) -> bool:
    value = document.get(key, False)
    text = value.lower() if isinstance(value, str) else value
    known = {True: True, False: False, "true": True, "false": False}
    if not isinstance(text, bool | str) or text not in known:
        raise _wrong(file, f'"{key}" is {json.dumps(value)}', "it must be true or false")
    return known[text]


def _version(document: Json, file: str) -> str:
    """Give the newest of `cniVersion` and `cniVersions` that the library knows."""
    single, listed = document.get("cniVersion") or "", document.get("cniVersions")
    if not isinstance(single, str):
        raise _wrong(file, f'"cniVersion" is {json.dumps(single)}', "it must be a text")
    if listed is None:
        return single or versions.OLDEST
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise _wrong(file, f'"cniVersions" is {json.dumps(listed)}', "it must be a list of texts")
    try:
        known = [each for each in [*listed, single] if each and versions.at_least(versions.CURRENT, each)]
    except CniError as error:
        raise _wrong(file, error.msg, error.details) from error
    return max(known, key=versions.parse, default=single or versions.OLDEST)


def _wrong(file: str, what: str, hint: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"error parsing configuration list {file}: {what}", hint)


def subnets(network: Network) -> list[str]:
    """Give the subnets that a network's IPAM hands out of, as written; of any plugin that calls them so."""
    found: list[str] = []
    for plugin in network.plugins:
        ipam = fold(plugin.document).get("ipam")
        if not isinstance(ipam, dict):
            continue
        folded = fold(ipam)
        sets = folded.get("ranges")
        ranges = (
            [each for listed in sets if isinstance(listed, list) for each in listed]
            if isinstance(sets, list)
            else []
        )
        for each in [ipam, *ranges]:
            subnet = fold(each).get("subnet") if isinstance(each, dict) else None
            if isinstance(subnet, str) and subnet:
                found.append(subnet)
    return list(dict.fromkeys(found))


def bridges(network: Network) -> list[str]:
    """Give the names of the bridges that a network's plugins use."""
    documents = [fold(plugin.document) for plugin in network.plugins if plugin.type == "bridge"]
    return [str(each.get("bridge") or "cni0") for each in documents]

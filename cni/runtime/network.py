"""A network as configured: a list of plugins and the keys that apply to all of them. No I/O."""

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

# The kernel's kind of link, which is also the key of its name.
_BRIDGE = "bridge"
_USUAL_BRIDGE = "cni0"


@dataclass(frozen=True, slots=True)
class PluginConf:
    """One plugin of a network; `document` is its configuration as written."""

    type: str
    name: str
    capabilities: frozenset[str]
    document: Json

    @property
    def folded_ipam(self) -> Json:
        """Its "ipam" object with folded keys, empty without one."""
        ipam = fold(self.document).get("ipam")
        return fold(ipam) if isinstance(ipam, dict) else {}

    @property
    def ipam(self) -> str:
        """The type of its IPAM plugin, "" without one."""
        type_ = self.folded_ipam.get("type")
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

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities of its plugins."""
        return frozenset(each for plugin in self.plugins for each in plugin.capabilities)

    def has(self, verb: str) -> bool:
        """Return whether the spec version of the network knows the verb."""
        return versions.at_least(self.cni_version, versions.FIRST_WITH_VERB.get(verb, versions.OLDEST))

    def with_plugins(self, more: Iterable[PluginConf]) -> Network:
        """Return the same network with further plugins at the end of its chain."""
        return replace(self, plugins=(*self.plugins, *more))


def parse_network(text: bytes, file: str) -> Network:
    """Read a configuration list (`.conflist`). Raise CniError 6 or 7; every message names the file.

    The list may lack plugins: they can lie in a folder of their own, see `cni.runtime.conflists`.
    """
    document = decode_object(text, file)
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(file, "no network name", '"name" must be a string that is not empty')
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
    """Read the configuration of one plugin (`.conf`). Raise CniError 6 or 7; the message names the file."""
    return _plugin(decode_object(text, file), file)


def parse_single(text: bytes, file: str) -> Network:
    """Read a configuration of one plugin (`.conf`, `.json`) as a network with only this plugin."""
    plugin = parse_plugin(text, file)
    version = fold(plugin.document).get("cniversion", "")
    if not plugin.name:
        raise _wrong(file, "no network name", '"name" must be a string that is not empty')
    document = {"cniVersion": version, "name": plugin.name, "plugins": [plugin.document]}
    return parse_network(compact(document), file)


def compact(document: object) -> bytes:
    """Return JSON as the Go library writes it: keys sorted, no spaces."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode(
        errors="replace"
    )


def _plugins(document: Json, file: str) -> tuple[PluginConf, ...]:
    listed = document["plugins"]
    if not isinstance(listed, list):
        raise _wrong(file, f'"plugins" is {json.dumps(listed)}', "it must be an array of objects")
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
        raise _wrong(where, f'"name" is {json.dumps(name)}', "it must be a string")
    if not isinstance(capabilities, dict) or not all(isinstance(on, bool) for on in capabilities.values()):
        raise _wrong(where, f'"capabilities" is {json.dumps(capabilities)}', 'such as {"portMappings": true}')
    return PluginConf(type_, name, frozenset(key for key, on in capabilities.items() if on), document)


def fold(document: Json) -> Json:
    """Return an object with lower-case keys and without nulls: keys match in any case."""
    return {key.lower(): value for key, value in document.items() if value is not None}


def _flag(document: Json, key: str, file: str) -> bool:
    value = document.get(key, False)
    text = value.lower() if isinstance(value, str) else value
    known = {True: True, False: False, "true": True, "false": False}
    if not isinstance(text, bool | str) or text not in known:
        raise _wrong(file, f'"{key}" is {json.dumps(value)}', "it must be true or false")
    return known[text]


def _version(document: Json, file: str) -> str:
    """Return the newest version in `cniVersion` and `cniVersions` that the library knows."""
    single, listed = document.get("cniVersion") or "", document.get("cniVersions")
    if not isinstance(single, str):
        raise _wrong(file, f'"cniVersion" is {json.dumps(single)}', "it must be a string")
    if listed is None:
        return single or versions.OLDEST
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise _wrong(file, f'"cniVersions" is {json.dumps(listed)}', "it must be an array of strings")
    try:
        known = [each for each in [*listed, single] if each and versions.at_least(versions.CURRENT, each)]
    except CniError as error:
        raise _wrong(file, error.msg, error.details) from error
    return max(known, key=versions.parse, default=single or versions.OLDEST)


def _wrong(file: str, problem: str, hint: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"error parsing configuration list {file}: {problem}", hint)


def ranges(ipam: Json) -> list[list[object]]:
    """Return the range sets of an "ipam" object as written; the keys of the object are folded.

    This is the form of every IPAM plugin that keeps its leases in the files of `cni.ipam`. `subnet` beside
    `ranges` is the old way to write a first set.
    """
    sets = ipam.get("ranges")
    listed = [each for each in sets if isinstance(each, list)] if isinstance(sets, list) else []
    return [[ipam], *listed] if ipam.get("subnet") else listed


def subnets(network: Network) -> list[str]:
    """Return the subnets from which the network's IPAM plugins assign addresses, as written."""
    written = [
        fold(each).get("subnet")
        for plugin in network.plugins
        for range_set in ranges(plugin.folded_ipam)
        for each in range_set
        if isinstance(each, dict)
    ]
    return list(dict.fromkeys(each for each in written if isinstance(each, str) and each))


def bridges(network: Network) -> list[str]:
    """Return the names of the bridges that a network's plugins use.

    A plugin that is named after the kernel's kind of link makes a bridge of the usual name without the key.
    """
    folded = [(plugin.type, fold(plugin.document).get(_BRIDGE)) for plugin in network.plugins]
    return [str(name or _USUAL_BRIDGE) for type_, name in folded if name or type_ == _BRIDGE]

"""Run the plugins of a network one after the other, as libcni does (CNI spec 1.1.0, section 3).

ADD stops at the first error and takes nothing back: that is for the caller, who sends a DEL (or asks
`add` to). DEL runs in reverse order and stops at the first error as well, so that it can be repeated.
A plugin that is missing does not stop DEL: the others must clean up, and it is reported at the end.

GC and STATUS came with version 1.1.0 of the spec. Plugins of this suite are asked in older networks as
well, by commands of their own. Plugins of other suites cannot be asked there, which is logged.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cni import delegate, versions
from cni.conf import decode_object
from cni.convert import parse_result, show_result
from cni.errors import CniError, Code, ErrorList
from cni.kernel import netns
from cni.log import note
from cni.operations import holders
from cni.operations.garbage import is_own_answer, is_refusal, refusal_text
from cni.request import ANY_VERSION, Attachment, Verb, check_ifname, check_name
from cni.runtime.cache import Cache, Entry
from cni.runtime.derive import RuntimeArgs, plugin_env, plugin_stdin
from cni.runtime.execute import UnavailableError, run_plugin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cni.runtime.network import Network, PluginConf

Json = dict[str, Any]

# A kubelet gives up on a pod's sandbox after four minutes: a plugin that takes longer helps nobody.
DEFAULT_TIMEOUT_S = 240.0

# The Go plugins check these variables before they look at a command that they do not know.
_DUMMY = RuntimeArgs("dummy", "dummy", "dummy")

# As in libcni's messages, which people search for.
_DOING = {Verb.DEL: "delete"}


class Runtime:
    """Executes plugins found on `path` with `env` and the CNI_* variables; keeps results in `cache`.

    All methods raise CniError; a plugin's own error keeps its code and details.
    """

    def __init__(
        self,
        path: Sequence[str],
        env: Mapping[str, str],
        cache: Cache | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.path = tuple(path)
        self.cache = cache or Cache()
        self._env = env
        self._timeout_s = timeout_s

    def add(self, network: Network, told: RuntimeArgs, *, undo: bool = False) -> Json:
        """Attach and give the last plugin's result in the network's version; it is cached then.

        With `undo` a failed ADD is followed by a DEL, whose own errors are told in the details.
        """
        attachment = _check(network, told)
        self.cache.path(network.name, attachment)
        try:
            return self._add(network, told)
        except CniError as error:
            if undo:
                self._take_back(network, told, error)
            raise

    def _add(self, network: Network, told: RuntimeArgs) -> Json:
        result: Json | None = None
        for plugin in network.plugins:
            with _telling(plugin, Verb.ADD):
                stdin = plugin_stdin(network, plugin, result, told.capability_args)
                result = _read_result(self.run(Verb.ADD, plugin, stdin, told), network, plugin)
        with _prefixing(f'failed to set network "{network.name}" cached result'):
            self.cache.write(_entry(network, told, result or {}))
        return result or {}

    def _take_back(self, network: Network, told: RuntimeArgs, error: CniError) -> None:
        try:
            self.delete(network, told)
        except CniError as second:
            raise CniError(error.code, error.msg, f"{error.details}; also: {second}".lstrip("; ")) from error

    def check(self, network: Network, told: RuntimeArgs) -> None:
        """Let every plugin compare what is with what its ADD made, in order.

        Raises CniError 1 for a network older than 0.4.0 and 3 when the cache knows no such attachment.
        """
        if not network.has(Verb.CHECK):
            raise CniError(
                Code.INCOMPATIBLE_VERSION,
                f'configuration version "{network.cni_version}" does not support the CHECK command',
                f"it came with {versions.FIRST_WITH_VERB[Verb.CHECK]}",
            )
        attachment = _check(network, told)
        if network.disable_check:
            return
        entry = self.cache.read(network.name, attachment)
        if entry is None:
            raise CniError(
                Code.UNKNOWN_CONTAINER,
                f'network "{network.name}" has no attachment {told.container_id} {told.ifname} to check',
                f"there is no {self.cache.path(network.name, attachment)}; ADD writes it",
            )
        told = _as_added(told, entry)
        result = in_version(entry.result, network)
        for plugin in network.plugins:
            with _telling(plugin, Verb.CHECK):
                stdin = plugin_stdin(network, plugin, result, told.capability_args)
                self.run(Verb.CHECK, plugin, stdin, told)

    def delete(self, network: Network, told: RuntimeArgs) -> None:
        """Detach; an attachment that never was is fine. The cached result goes after full success only.

        Raises UnavailableError when plugins are missing and all others have succeeded.
        """
        missing = self._delete(network, told)
        if missing:
            raise _not_asked(network, missing)

    def _delete(self, network: Network, told: RuntimeArgs) -> dict[str, UnavailableError]:
        """Let all plugins delete that are there, and return an error for each type that is missing."""
        attachment = _check(network, told)
        entry = self._entry_or_none(network, attachment)
        told = _as_added(told, entry)
        result = self._result_for_del(network, entry, told.netns)
        missing: dict[str, UnavailableError] = {}
        for plugin in reversed(network.plugins):
            try:
                with _telling(plugin, Verb.DEL):
                    stdin = plugin_stdin(network, plugin, result, told.capability_args)
                    self.run(Verb.DEL, plugin, stdin, told)
            except UnavailableError as error:
                missing[plugin.type] = error
        if not missing:
            self.cache.remove(network.name, attachment)
        return missing

    def _entry_or_none(self, network: Network, attachment: Attachment) -> Entry | None:
        """Give the cached entry, None for a broken one as well: that must not keep anybody from a DEL."""
        try:
            return self.cache.read(network.name, attachment)
        except CniError:
            return None

    @staticmethod
    def _result_for_del(network: Network, entry: Entry | None, path: str) -> Json | None:
        if entry is None or not entry.result:
            return None
        has_result = versions.at_least(network.cni_version, versions.FIRST_WITH_PREV_RESULT_ON_DEL)
        # By its path a plugin of an older version does not find a container that is not seen from here. It
        # would give its address away while it is attached.
        if not has_result and not (netns.is_gone(path) and holders.has_host_end(entry.result)):
            return None
        try:
            return in_version(entry.result, network)
        except CniError:
            return None

    def gc(self, network: Network, valid: Collection[Attachment] | None) -> None:
        """Remove whatever belongs to attachments that are not in `valid`; None keeps none.

        First a DEL for every such attachment in the cache, then GC for every plugin. Goes on after errors and
        raises them together.
        """
        if network.disable_gc:
            return
        check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
        errors = ErrorList()
        missing: dict[str, UnavailableError] = {}
        for entry in self.cache.list_entries():
            if entry.network == network.name and entry.attachment not in (valid or ()):
                try:
                    missing |= self._delete_stale(network, entry)
                except CniError as error:
                    errors.errors.append(error)
        for plugin in network.plugins:
            try:
                with _prefixing(f"failed to GC plugin {plugin.type}"):
                    self.ask(Verb.GC, network, plugin, plugin_stdin(network, plugin, valid=valid))
            except UnavailableError as error:
                missing.setdefault(plugin.type, error)
            except CniError as error:
                errors.errors.append(error)
        if missing:
            errors.errors.append(_not_asked(network, missing))
        errors.raise_any()

    def _delete_stale(self, network: Network, entry: Entry) -> dict[str, UnavailableError]:
        what = f"failed to delete stale attachment {entry.container_id} {entry.ifname}"
        with _prefixing(what):
            return self._delete(network, RuntimeArgs(entry.container_id, entry.sandbox, entry.ifname))

    def status(self, network: Network) -> None:
        """Ask every plugin whether it could ADD now. Raises the first error, the others in its details."""
        errors = ErrorList()
        for plugin in network.plugins:
            errors.attempt(self._status_plugin, network, plugin)
        errors.raise_any()

    def _status_plugin(self, network: Network, plugin: PluginConf) -> None:
        with _telling(plugin, Verb.STATUS):
            is_asked = self.ask(Verb.STATUS, network, plugin, plugin_stdin(network, plugin))
            if not is_asked and plugin.ipam:
                # A plugin of this suite looks for its IPAM plugin itself.
                delegate.find(plugin.ipam, self.path)

    def ask(
        self,
        verb: Verb,
        network: Network,
        plugin: PluginConf,
        stdin: bytes,
    ) -> bool:
        """Run GC or STATUS of one plugin whatever the network's version is.

        Returns False, and logs it, where the version has no such verb and the plugin is of another suite.
        """
        if network.has(verb):
            self.run(verb, plugin, stdin, RuntimeArgs())
            return True
        if is_own_answer(self.ask_own(ANY_VERSION[verb], plugin, stdin)):
            return True
        note(f"pycni: {refusal_text(plugin.type, verb, network.cni_version)}")
        return False

    def ask_own(self, verb: Verb, plugin: PluginConf, stdin: bytes, told: RuntimeArgs = _DUMMY) -> bytes:
        """Run a command of this suite; b"" from a plugin of another suite, which does not know it."""
        try:
            return self.run(verb, plugin, stdin, told)
        except CniError as error:
            if is_refusal(error):
                return b""
            raise

    def versions(self, type_: str) -> tuple[str, ...]:
        """Give the spec versions that a plugin supports."""
        env = plugin_env(self._env, Verb.VERSION, ("dummy",), _DUMMY)
        stdin = json.dumps({"cniVersion": versions.CURRENT}).encode()
        try:
            answer = run_plugin(delegate.find(type_, self.path), env, stdin, self._timeout_s)
        except CniError as error:
            # So says a plugin of spec 0.1.0, which had no such verb.
            if error.msg == "unknown CNI_COMMAND: VERSION":
                return (versions.OLDEST,)
            raise
        listed = decode_object(answer, f"the answer of plugin {type_} to VERSION").get("supportedVersions")
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise CniError(Code.DECODING_FAILURE, f"plugin {type_} named no supportedVersions")
        return tuple(listed)

    def run(self, verb: Verb, plugin: PluginConf, stdin: bytes, told: RuntimeArgs) -> bytes:
        """Run one verb of one plugin and give what it printed."""
        try:
            executable = delegate.find(plugin.type, self.path)
        except CniError as error:
            raise UnavailableError(error.code, error.msg, error.details) from error
        return run_plugin(executable, plugin_env(self._env, verb, self.path, told), stdin, self._timeout_s)


def _check(network: Network, told: RuntimeArgs) -> Attachment:
    check_name(told.container_id, Code.INVALID_ENVIRONMENT, "invalid characters in containerID")
    check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
    if not told.ifname:
        raise CniError(Code.INVALID_ENVIRONMENT, "interface name is empty", "CNI_IFNAME must not be empty")
    check_ifname(told.ifname)
    return Attachment(told.container_id, told.ifname)


def _entry(network: Network, told: RuntimeArgs, result: Json) -> Entry:
    return Entry(
        network.name,
        told.container_id,
        told.ifname,
        network.text,
        told.netns,
        told.args or (),
        dict(told.capability_args or {}),
        result,
    )


def _as_added(told: RuntimeArgs, entry: Entry | None) -> RuntimeArgs:
    """Fill in from the cache what the runtime left open."""
    return RuntimeArgs(
        told.container_id,
        told.netns,
        told.ifname,
        told.args if told.args is not None or entry is None else entry.args,
        told.capability_args if told.capability_args is not None or entry is None else entry.capability_args,
    )


def _read_result(stdout: bytes, network: Network, plugin: PluginConf) -> Json:
    what = f"result of {plugin.type}"
    if not stdout.strip():
        raise CniError(Code.DECODING_FAILURE, f"no result: {plugin.type} printed nothing", "ADD prints one")
    document = {} if stdout.strip() == b"null" else decode_object(stdout, what)
    return in_version(document, network, what)


def in_version(document: Json, network: Network, what: str = "cached result") -> Json:
    """Give a result in the network's version; members that no spec knows stay unless it must be converted."""
    parsed = parse_result(document, network.cni_version, what)
    others = {key: value for key, value in document.items() if key.lower() != "cniversion"}
    named = [value for key, value in document.items() if key not in others and value]
    if named and named[-1] != network.cni_version:
        return show_result(parsed, network.cni_version)
    return {"cniVersion": network.cni_version} | others


@contextmanager
def _telling(plugin: PluginConf, verb: Verb) -> Iterator[None]:
    name = f' name="{plugin.name}"' if plugin.name else ""
    doing = _DOING.get(verb, verb.lower())
    with _prefixing(f'plugin type="{plugin.type}"{name} failed ({doing})'):
        yield


@contextmanager
def _prefixing(what: str) -> Iterator[None]:
    try:
        yield
    except CniError as error:
        kind = UnavailableError if isinstance(error, UnavailableError) else CniError
        raise kind(error.code, f"{what}: {error.msg}", error.details) from error


def _not_asked(network: Network, missing: Mapping[str, UnavailableError]) -> UnavailableError:
    """Return the error for plugins that are missing where all others have deleted their part."""
    first, *others = missing.values()
    names = ", ".join(missing)
    where = network.file or "the network's file"
    parts = [
        first.details,
        *(f"also: {error.msg}" for error in others),
        "the other plugins have deleted their part",
        f"if {names} ever ran for this network, its part remains: install it and call the command again",
        f"else remove it from {where}",
    ]
    return UnavailableError(first.code, first.msg, "; ".join(filter(None, parts)))

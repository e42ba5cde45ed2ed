"""Run the plugins of a network one after the other, as libcni does (CNI spec 1.1.0, section 3).

ADD stops at the first error and undoes nothing: the caller sends a DEL (or passes `undo` to `add`). DEL runs
in reverse order and stops at the first error too, so that it can be repeated. A missing plugin does not stop
DEL: the other plugins clean up, and the missing one is reported at the end.

Version 1.1.0 of the spec introduced GC and STATUS. In older networks, plugins of this suite get commands of
their own instead. Plugins of other suites get none there, which is logged.
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

# A kubelet gives up on a pod's sandbox after four minutes, so a longer wait is useless.
DEFAULT_TIMEOUT_S = 240.0

# The Go plugins check these variables before they refuse an unknown command.
_UNUSED = RuntimeArgs("unused", "unused", "unused")

# The words of libcni's messages, which users search for.
_VERB_WORDS = {Verb.DEL: "delete"}


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

    def add(
        self, network: Network, runtime_args: RuntimeArgs, *, undo: bool = False, is_announced: bool = False
    ) -> Json:
        """Attach. Return the last plugin's result in the network's version, and write it to the cache.

        With `undo` a failed ADD is followed by a DEL. Errors of the DEL are added to the details. With
        `is_announced` the cache has the attachment without a result while the plugins run: if this process is
        killed, the DEL that is due is known.
        """
        attachment = _check(network, runtime_args)
        self.cache.path(network.name, attachment)
        try:
            if is_announced:
                self.cache.write(_entry(network, runtime_args, {}))
            return self._add(network, runtime_args)
        except CniError as error:
            if undo:
                self._undo_add(network, runtime_args, error)
            raise

    def _add(self, network: Network, runtime_args: RuntimeArgs) -> Json:
        result: Json | None = None
        for plugin in network.plugins:
            with _prefixing_plugin(plugin, Verb.ADD):
                stdin = plugin_stdin(network, plugin, result, runtime_args.capability_args)
                result = _read_result(self.run(Verb.ADD, plugin, stdin, runtime_args), network, plugin)
        with _prefixing(f'failed to set network "{network.name}" cached result'):
            self.cache.write(_entry(network, runtime_args, result or {}))
        return result or {}

    def _undo_add(self, network: Network, runtime_args: RuntimeArgs, error: CniError) -> None:
        try:
            self.delete(network, runtime_args)
        except CniError as second:
            raise CniError(error.code, error.msg, f"{error.details}; also: {second}".lstrip("; ")) from error

    def check(self, network: Network, runtime_args: RuntimeArgs) -> None:
        """Run CHECK of every plugin, in order.

        Raises CniError 1 for a network older than 0.4.0 and 3 if the attachment is not in the cache.
        """
        if not network.has(Verb.CHECK):
            raise CniError(
                Code.INCOMPATIBLE_VERSION,
                f'configuration version "{network.cni_version}" does not support the CHECK command',
                f"Set cniVersion to {versions.FIRST_WITH_VERB[Verb.CHECK]} or later.",
            )
        attachment = _check(network, runtime_args)
        if network.disable_check:
            return
        entry = self.cache.read(network.name, attachment)
        if entry is None:
            raise CniError(
                Code.UNKNOWN_CONTAINER,
                f'network "{network.name}" has no attachment {attachment.container_id} '
                f"{attachment.ifname} to check",
                f"Call ADD first: it writes {self.cache.path(network.name, attachment)}.",
            )
        runtime_args = _as_added(runtime_args, entry)
        result = in_version(entry.result, network)
        for plugin in network.plugins:
            with _prefixing_plugin(plugin, Verb.CHECK):
                stdin = plugin_stdin(network, plugin, result, runtime_args.capability_args)
                self.run(Verb.CHECK, plugin, stdin, runtime_args)

    def delete(self, network: Network, runtime_args: RuntimeArgs) -> None:
        """Detach; succeed if nothing is attached. Remove the cached result only after full success.

        Raises UnavailableError if plugins are missing and all others have succeeded.
        """
        missing = self._delete(network, runtime_args)
        if missing:
            raise _missing_error(network, missing)

    def _delete(self, network: Network, runtime_args: RuntimeArgs) -> dict[str, UnavailableError]:
        """Run DEL of all installed plugins. Return an error for each missing type."""
        attachment = _check(network, runtime_args)
        entry = self._entry_or_none(network, attachment)
        runtime_args = _as_added(runtime_args, entry)
        result = self._result_for_del(network, entry, runtime_args.netns)
        missing: dict[str, UnavailableError] = {}
        for plugin in reversed(network.plugins):
            try:
                with _prefixing_plugin(plugin, Verb.DEL):
                    stdin = plugin_stdin(network, plugin, result, runtime_args.capability_args)
                    self.run(Verb.DEL, plugin, stdin, runtime_args)
            except UnavailableError as error:
                missing[plugin.type] = error
        if not missing:
            self.cache.remove(network.name, attachment)
        return missing

    def _entry_or_none(self, network: Network, attachment: Attachment) -> Entry | None:
        """Return the cached entry; None also if it is broken, which must not prevent a DEL."""
        try:
            return self.cache.read(network.name, attachment)
        except CniError:
            return None

    @staticmethod
    def _result_for_del(network: Network, entry: Entry | None, path: str) -> Json | None:
        if entry is None or not entry.result:
            return None
        has_result = versions.at_least(network.cni_version, versions.FIRST_WITH_PREV_RESULT_ON_DEL)
        # A plugin of an older version finds the container by its path only. If that path is not visible from
        # here, the plugin would release the address of a container that is still attached.
        if not has_result and not (netns.is_gone(path) and holders.has_host_end(entry.result)):
            return None
        try:
            return in_version(entry.result, network)
        except CniError:
            return None

    def gc(self, network: Network, valid: Collection[Attachment] | None) -> None:
        """Remove everything that belongs to attachments not in `valid`; with None, to all attachments.

        First runs DEL for every such attachment in the cache, then GC of every plugin. Continues after errors
        and raises them together.
        """
        if network.disable_gc:
            return
        check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
        errors = ErrorList()
        errors.attempt(self.cache.remove_unfinished)
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
            errors.errors.append(_missing_error(network, missing))
        errors.raise_any()

    def _delete_stale(self, network: Network, entry: Entry) -> dict[str, UnavailableError]:
        with _prefixing(f"failed to delete stale attachment {entry.container_id} {entry.ifname}"):
            return self._delete(network, RuntimeArgs(entry.container_id, entry.sandbox, entry.ifname))

    def status(self, network: Network) -> None:
        """Run STATUS of every plugin. Raises the first error with the others in its details."""
        errors = ErrorList()
        for plugin in network.plugins:
            errors.attempt(self._status_plugin, network, plugin)
        errors.raise_any()

    def _status_plugin(self, network: Network, plugin: PluginConf) -> None:
        with _prefixing_plugin(plugin, Verb.STATUS):
            is_asked = self.ask(Verb.STATUS, network, plugin, plugin_stdin(network, plugin))
            if not is_asked and plugin.ipam:
                # A plugin of this suite finds its IPAM plugin itself.
                delegate.find(plugin.ipam, self.path)

    def ask(
        self,
        verb: Verb,
        network: Network,
        plugin: PluginConf,
        stdin: bytes,
    ) -> bool:
        """Run GC or STATUS of one plugin, whatever the network's version is.

        Returns False and logs a line if the version has no such verb and the plugin is of another suite.
        """
        if network.has(verb):
            self.run(verb, plugin, stdin, RuntimeArgs())
            return True
        if is_own_answer(self.ask_own(ANY_VERSION[verb], plugin, stdin)):
            return True
        note(f"pycni: {refusal_text(plugin.type, verb, network.cni_version)}")
        return False

    def ask_own(
        self,
        verb: Verb,
        plugin: PluginConf,
        stdin: bytes,
        runtime_args: RuntimeArgs = _UNUSED,
        *,
        calls: int = 1,
    ) -> bytes:
        """Run a command of this suite. Return b"" for a plugin of another suite, which does not know it.

        `calls` is as in `run`.
        """
        try:
            return self.run(verb, plugin, stdin, runtime_args, calls=calls)
        except CniError as error:
            if is_refusal(error):
                return b""
            raise

    def versions(self, type_: str) -> tuple[str, ...]:
        """Return the spec versions that a plugin supports."""
        env = plugin_env(self._env, Verb.VERSION, ("unused",), _UNUSED)
        stdin = json.dumps({"cniVersion": versions.CURRENT}).encode()
        try:
            response = run_plugin(delegate.find(type_, self.path), env, stdin, self._timeout_s)
        except CniError as error:
            # A plugin of spec 0.1.0 answers this: that version has no VERSION.
            if error.msg == "unknown CNI_COMMAND: VERSION":
                return (versions.OLDEST,)
            raise
        listed = decode_object(response, f"the response of plugin {type_} to VERSION").get(
            "supportedVersions"
        )
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise CniError(
                Code.DECODING_FAILURE, f'"supportedVersions" of plugin {type_} must be an array of strings'
            )
        return tuple(listed)

    def run(
        self, verb: Verb, plugin: PluginConf, stdin: bytes, runtime_args: RuntimeArgs, *, calls: int = 1
    ) -> bytes:
        """Run one verb of one plugin. Return its stdout.

        A process that answers several `calls` has twice the time of one: the limit is for plugins that hang.
        """
        try:
            executable = delegate.find(plugin.type, self.path)
        except CniError as error:
            raise UnavailableError(error.code, error.msg, error.details) from error
        env = plugin_env(self._env, verb, self.path, runtime_args)
        return run_plugin(executable, env, stdin, self._timeout_s * min(calls, 2))


def _check(network: Network, runtime_args: RuntimeArgs) -> Attachment:
    check_name(runtime_args.container_id, Code.INVALID_ENVIRONMENT, "invalid characters in containerID")
    check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
    if not runtime_args.ifname:
        raise CniError(Code.INVALID_ENVIRONMENT, "interface name is empty", "CNI_IFNAME must not be empty")
    check_ifname(runtime_args.ifname)
    return Attachment(runtime_args.container_id, runtime_args.ifname)


def _entry(network: Network, runtime_args: RuntimeArgs, result: Json) -> Entry:
    return Entry(
        network.name,
        runtime_args.container_id,
        runtime_args.ifname,
        network.text,
        runtime_args.netns,
        runtime_args.args or (),
        dict(runtime_args.capability_args or {}),
        result,
    )


def _as_added(runtime_args: RuntimeArgs, entry: Entry | None) -> RuntimeArgs:
    """Return the arguments, with those that are None taken from the cache."""
    return RuntimeArgs(
        runtime_args.container_id,
        runtime_args.netns,
        runtime_args.ifname,
        runtime_args.args if runtime_args.args is not None or entry is None else entry.args,
        runtime_args.capability_args
        if runtime_args.capability_args is not None or entry is None
        else entry.capability_args,
    )


def _read_result(stdout: bytes, network: Network, plugin: PluginConf) -> Json:
    name = f"result of {plugin.type}"
    if not stdout.strip():
        raise CniError(
            Code.DECODING_FAILURE,
            f"no result: {plugin.type} printed nothing",
            "Report this to the plugin's author.",
        )
    document = {} if stdout.strip() == b"null" else decode_object(stdout, name)
    return in_version(document, network, name)


def in_version(document: Json, network: Network, name: str = "cached result") -> Json:
    """Return a result in the network's version. Without a conversion, unknown members remain.

    `name` names the result in errors.
    """
    parsed = parse_result(document, network.cni_version, name)
    others = {key: value for key, value in document.items() if key.lower() != "cniversion"}
    named = [value for key, value in document.items() if key not in others and value]
    if named and named[-1] != network.cni_version:
        return show_result(parsed, network.cni_version)
    return {"cniVersion": network.cni_version} | others


@contextmanager
def _prefixing_plugin(plugin: PluginConf, verb: Verb) -> Iterator[None]:
    name = f' name="{plugin.name}"' if plugin.name else ""
    doing = _VERB_WORDS.get(verb, verb.lower())
    with _prefixing(f'plugin type="{plugin.type}"{name} failed ({doing})'):
        yield


@contextmanager
def _prefixing(prefix: str) -> Iterator[None]:
    try:
        yield
    except CniError as error:
        kind = UnavailableError if isinstance(error, UnavailableError) else CniError
        raise kind(error.code, f"{prefix}: {error.msg}", error.details) from error


def _missing_error(network: Network, missing: Mapping[str, UnavailableError]) -> UnavailableError:
    """Return the error for missing plugins, after all other plugins have deleted their part."""
    first, *others = missing.values()
    names = ", ".join(missing)
    file = network.file or "the network's file"
    parts = [
        first.details,
        *(f"also: {error.msg}" for error in others),
        "the other plugins have deleted their part",
        f"if {names} ever ran for this network, its part remains: install it and call the command again",
        f"else remove it from {file}",
    ]
    return UnavailableError(first.code, first.msg, "; ".join(filter(None, parts)))

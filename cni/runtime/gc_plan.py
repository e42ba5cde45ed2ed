"""List what a GC of a network would remove, from the result cache and from every plugin. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.operations import garbage
from cni.operations.garbage import Stale
from cni.operations.holders import is_proven_gone
from cni.request import Verb, check_name
from cni.runtime.derive import plugin_stdin
from cni.runtime.execute import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.request import Attachment
    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network, PluginConf


@dataclass(frozen=True, slots=True)
class GcPlan:
    """The objects that GC would remove, each with a reason.

    `silent` are the types of plugins of other suites, which do not report theirs. `missing` are the errors of
    plugins that are not installed.
    """

    things: tuple[Stale, ...] = ()
    silent: tuple[str, ...] = ()
    missing: tuple[CniError, ...] = ()


def plan(runtime: Runtime, network: Network, valid: Collection[Attachment]) -> GcPlan:
    """Return what `Runtime.gc` with the same arguments would remove. Raises CniError."""
    if network.disable_gc:
        return GcPlan()
    check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
    cached = [each for each in runtime.cache.list_entries() if each.network == network.name]
    stale = [each for each in cached if each.attachment not in valid]
    things = [
        Stale(
            "cached result",
            str(runtime.cache.path(network.name, each.attachment)),
            network.name,
            each.container_id,
            each.ifname,
        )
        for each in stale
    ]
    silent = []
    missing = []
    for plugin in network.plugins:
        try:
            stale_of_plugin = _ask(runtime, network, plugin, valid)
        except UnavailableError as error:
            missing.append(error)
            continue
        silent += [plugin.type] if stale_of_plugin is None else []
        things += stale_of_plugin or []
    unique = {(each.kind, each.name): each for each in reversed(things)}
    return GcPlan(
        tuple(_with_reason(each, cached) for each in reversed(unique.values())),
        tuple(dict.fromkeys(silent)),
        tuple(missing),
    )


def _ask(
    runtime: Runtime, network: Network, plugin: PluginConf, valid: Collection[Attachment]
) -> list[Stale] | None:
    """Return what a plugin would remove; None for a plugin of another suite."""
    stdin = plugin_stdin(network, plugin, valid=valid)
    try:
        response = runtime.ask_own(Verb.GC_PLAN, plugin, stdin)
    except UnavailableError:
        raise
    except CniError as error:
        raise CniError(
            error.code, f"plugin {plugin.type} failed to list stale objects: {error.msg}", error.details
        ) from error
    if not response:
        return None
    listed = decode_object(response, f"the response of plugin {plugin.type}").get("stale") or []
    return [garbage.parse(each) for each in listed if isinstance(each, dict)]


def is_owner(entry: Entry, thing: Stale) -> bool:
    """Return whether a thing belongs to an attachment; names of iptables chains do not contain the ifname."""
    return entry.container_id == thing.container_id and thing.ifname in {"", entry.ifname}


def _with_reason(thing: Stale, cached: Sequence[Entry]) -> Stale:
    return thing if thing.reason else thing._replace(reason=_reason(thing, cached))


def _reason(thing: Stale, cached: Sequence[Entry]) -> str:
    if not thing.container_id:
        return "its attachment is not valid"
    owner = next((each for each in cached if is_owner(each, thing)), None)
    if owner is None:
        return "no such attachment in the cache"
    is_gone = is_proven_gone(owner.sandbox, owner.result)
    return "its network namespace is gone" if is_gone else "gc removes every attachment"

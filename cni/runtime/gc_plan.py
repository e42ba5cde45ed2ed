"""What a GC of a network would remove, asked of the result cache and of every plugin; nothing is changed."""

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
    """What would go, each thing with a reason.

    `silent` are the types of plugins of other suites, which cannot tell. `missing` are errors of plugins that
    are not there.
    """

    things: tuple[Stale, ...] = ()
    silent: tuple[str, ...] = ()
    missing: tuple[CniError, ...] = ()


def plan(runtime: Runtime, network: Network, valid: Collection[Attachment]) -> GcPlan:
    """Tell what `Runtime.gc` with the same arguments would remove. Raises CniError."""
    if network.disable_gc:
        return GcPlan()
    check_name(network.name, Code.INVALID_CONFIG, "invalid characters found in network name")
    cached = [each for each in runtime.cache.list_entries() if each.network == network.name]
    going = [each for each in cached if each.attachment not in valid]
    found = [
        Stale(
            "cached result",
            str(runtime.cache.path(network.name, each.attachment)),
            network.name,
            each.container_id,
            each.ifname,
        )
        for each in going
    ]
    silent = []
    missing = []
    for plugin in network.plugins:
        try:
            told = _ask(runtime, network, plugin, valid)
        except UnavailableError as error:
            missing.append(error)
            continue
        silent += [plugin.type] if told is None else []
        found += told or []
    unique = {(each.kind, each.name): each for each in reversed(found)}
    return GcPlan(
        tuple(_with_reason(each, cached) for each in reversed(unique.values())),
        tuple(dict.fromkeys(silent)),
        tuple(missing),
    )


def _ask(
    runtime: Runtime, network: Network, plugin: PluginConf, valid: Collection[Attachment]
) -> list[Stale] | None:
    """Give what a plugin tells, None for one that does not know the question."""
    stdin = plugin_stdin(network, plugin, valid=valid)
    try:
        answer = runtime.ask_own(Verb.GC_PLAN, plugin, stdin)
    except UnavailableError:
        raise
    except CniError as error:
        raise CniError(
            error.code, f"failed to ask plugin {plugin.type} what is to go: {error.msg}", error.details
        ) from error
    if not answer:
        return None
    told = decode_object(answer, f"the answer of plugin {plugin.type}").get("stale") or []
    return [garbage.parse(each) for each in told if isinstance(each, dict)]


def is_owner(entry: Entry, thing: Stale) -> bool:
    """Return whether a thing is an attachment's; chains of iptables do not tell the ifname."""
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
    return "its network namespace is gone" if is_gone else "every attachment is to go"

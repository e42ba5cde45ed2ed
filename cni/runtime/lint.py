"""Find likely mistakes in configured networks that the spec allows: misspelt keys, overlapping subnets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cni import misspelt
from cni.addresses import parse_cidr
from cni.conf import Unread, decode_object
from cni.errors import CniError
from cni.request import Verb
from cni.runtime.derive import plugin_stdin
from cni.runtime.execute import UnavailableError
from cni.runtime.network import bridges, subnets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.result import IpNetwork
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network

_LIST_KEYS = frozenset(
    {
        "cniVersion",
        "cniVersions",
        "disableCheck",
        "disableGC",
        "loadOnlyInlinedPlugins",
        "name",
        "plugins",
    }
)


def list_warnings(runtime: Runtime, network: Network, configured: Sequence[Network]) -> list[str]:
    """Return a sentence for each likely mistake in one of the configured networks."""
    return [
        *_list_misspelt_in_list(network),
        *_list_from_plugins(runtime, network),
        *list_overlaps(network, configured),
    ]


def _list_misspelt_in_list(network: Network) -> list[str]:
    document = decode_object(network.text, network.file)
    known = {key.lower() for key in _LIST_KEYS}
    unread = [Unread("", key, _LIST_KEYS) for key in document if key.lower() not in known]
    return misspelt.explain(unread)


def _list_from_plugins(runtime: Runtime, network: Network) -> list[str]:
    """Return the unknown keys that plugins of this suite report, IPAM plugins included.

    Plugins of other suites and missing plugins are skipped: `status` reports the latter.
    """
    warnings: list[str] = []
    for plugin in network.plugins:
        stdin = plugin_stdin(network, plugin)
        for type_ in filter(None, (plugin.type, plugin.ipam)):
            try:
                response = runtime.ask_own(Verb.LINT, replace(plugin, type=type_), stdin)
                if response.strip():
                    document = decode_object(response, f"the response of plugin {type_}")
                    warnings += [f"{type_}: {each}" for each in document.get("warnings") or []]
            except UnavailableError:
                continue
            except CniError as error:
                warnings.append(f"{type_}: {error}")
    return list(dict.fromkeys(warnings))


class _BridgeSubnet(NamedTuple):
    """A subnet of a network, and the bridge that has it."""

    bridge: str
    subnet: IpNetwork


def list_overlaps(network: Network, configured: Sequence[Network]) -> list[str]:
    """Return a sentence for each other network whose subnet overlaps on another bridge.

    Of several networks with one name the first counts.
    """
    own = _list_subnets(network)
    others = {each.name: each for each in reversed(configured) if each.name != network.name}
    warnings = []
    for other in sorted(others.values(), key=lambda each: each.name):
        pair = next(
            (
                (ours, theirs)
                for ours in own
                for theirs in _list_subnets(other)
                if ours.bridge != theirs.bridge and _overlap(ours.subnet, theirs.subnet)
            ),
            None,
        )
        if pair:
            ours, theirs = pair
            warnings.append(
                f"subnet {ours.subnet} of bridge {ours.bridge} overlaps {theirs.subnet} of bridge "
                f'{theirs.bridge} in network "{other.name}", give one of them another subnet'
            )
    return warnings


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and (one.network_address in other or other.network_address in one)


def _list_subnets(network: Network) -> list[_BridgeSubnet]:
    names = bridges(network)
    if not names:
        return []
    listed = []
    for text in subnets(network):
        try:
            listed.append(_BridgeSubnet(names[0], parse_cidr(text).network))
        except ValueError:
            # The plugin reports it.
            continue
    return listed

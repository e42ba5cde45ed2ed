"""Derive the configuration and environment of one plugin for one call. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni.runtime.network import compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni.request import Attachment, Verb
    from cni.runtime.network import Network, PluginConf


@dataclass(frozen=True, slots=True)
class RuntimeArgs:
    """A runtime's arguments for one attachment.

    `args` are the pairs of CNI_ARGS, `capability_args` the values for the plugins' capabilities. If they are
    None, CHECK and DEL use the values in the result cache.
    """

    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] | None = None
    capability_args: Mapping[str, Any] | None = None


def plugin_stdin(
    network: Network,
    plugin: PluginConf,
    prev_result: Mapping[str, Any] | None = None,
    capability_args: Mapping[str, Any] | None = None,
    valid: Iterable[Attachment] | None = None,
) -> bytes:
    """Derive a plugin's configuration from its network's (CNI spec 1.1.0, section 3).

    `valid` is for GC. None omits the key, which differs from an empty array.
    """
    added: dict[str, Any] = {"name": network.name, "cniVersion": network.cni_version}
    if prev_result is not None:
        added["prevResult"] = prev_result
    values = {key: value for key, value in (capability_args or {}).items() if key in plugin.capabilities}
    if values:
        added["runtimeConfig"] = values
    if valid is not None:
        listed = [{"containerID": each.container_id, "ifname": each.ifname} for each in sorted(valid)]
        # The second key is from a mistake in the spec's text, which plugins may follow; libcni sends both.
        added |= {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
    # Keys are case-insensitive: another spelling in the configuration must not override an added key.
    replaced = {key.lower() for key in added}
    own = {key: value for key, value in plugin.document.items() if key.lower() not in replaced}
    return compact(own | added)


def plugin_env(
    base: Mapping[str, str], verb: Verb, path: Sequence[str], runtime_args: RuntimeArgs
) -> dict[str, str]:
    """Return the runtime's environment with the CNI_* variables of a call.

    GC and STATUS have no attachment: its variables are set but empty.
    """
    return dict(base) | {
        "CNI_COMMAND": str(verb),
        "CNI_CONTAINERID": runtime_args.container_id,
        "CNI_NETNS": runtime_args.netns,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in runtime_args.args or ()),
        "CNI_IFNAME": runtime_args.ifname,
        "CNI_PATH": ":".join(path),
    }

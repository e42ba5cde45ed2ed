"""What one plugin of a network is handed for one call: configuration and environment. Pure."""

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
    """What a runtime says about one attachment.

    `args` are the pairs of CNI_ARGS, `capability_args` the values for the plugins' capabilities. None
    stands for "as at ADD": CHECK and DEL then take what the result cache has.
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

    `valid` goes to GC; None leaves the key out, which is not the same as an empty list.
    """
    given: dict[str, Any] = {"name": network.name, "cniVersion": network.cni_version}
    if prev_result is not None:
        given["prevResult"] = prev_result
    values = {key: value for key, value in (capability_args or {}).items() if key in plugin.capabilities}
    if values:
        given["runtimeConfig"] = values
    if valid is not None:
        listed = [{"containerID": each.container_id, "ifname": each.ifname} for each in sorted(valid)]
        # The second key is an error of the spec's text that plugins may have followed; libcni sends both.
        given |= {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
    # Keys match without regard to case: another spelling of a given key must not win over it.
    taken = {key.lower() for key in given}
    own = {key: value for key, value in plugin.document.items() if key.lower() not in taken}
    return compact(own | given)


def plugin_env(base: Mapping[str, str], verb: Verb, path: Sequence[str], told: RuntimeArgs) -> dict[str, str]:
    """Give the environment of a call: the runtime's own with the CNI_* variables in it.

    GC and STATUS concern no attachment: their variables are set but empty.
    """
    return dict(base) | {
        "CNI_COMMAND": str(verb),
        "CNI_CONTAINERID": told.container_id,
        "CNI_NETNS": told.netns,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in told.args or ()),
        "CNI_IFNAME": told.ifname,
        "CNI_PATH": ":".join(path),
    }

"""Calls of every plugin: those of a container's life, and those with something wrong."""

from __future__ import annotations

from typing import Any, TypeVar

from plugin_table import INTERFACE
from tests.support import scene
from tests.support.subjects import PLUGINS, configuration, wrong

T = TypeVar("T")
BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1"}
VERBS = ("STATUS", "ADD", "CHECK", "PYCNI_REPAIR", "PYCNI_GC_PLAN", "DEL", "GC", "VERSION")
# A plugin without `repair` says so; all other verbs that a plugin does not have succeed.
REFUSED = {("PYCNI_REPAIR", name) for name in PLUGINS if not scene.load(name).find("repair")}

Call = tuple[str, str, dict[str, Any] | str, dict[str, Any]]

_BRIDGE = configuration(scene.INTERFACE)


def _list_wrong() -> dict[str, Call]:
    """Return plugin, verb, configuration or text, and other arguments, by what is wrong."""
    calls: dict[str, Call] = {}
    for name, plugin in PLUGINS.items():
        conf = configuration(name)
        calls |= {
            f"{name}: no JSON": (name, "ADD", "{", {}),
            f"{name}: no object": (name, "DEL", "[]", {}),
            f"{name}: nothing": (name, "CHECK", "", {}),
            f"{name}: no name": (name, "ADD", {"cniVersion": "1.0.0"}, {}),
            f"{name}: another version": (name, "ADD", conf | {"cniVersion": "8.0.0"}, {}),
        }
        calls |= {
            f"{name}: wrong keys {number}": (name, "ADD", each, {})
            for number, each in enumerate(wrong(name), 1)
        }
        if plugin.kind == INTERFACE:
            calls |= {
                f"{name}: no namespace": (name, "ADD", conf, {"netns": "/run/netns/none"}),
                f"{name}: a file for a namespace": (name, "ADD", conf, {"netns": "/run/netns/file"}),
                f"{name}: the host's namespace": (name, "ADD", conf, {"netns": "/proc/self/ns/net"}),
                f"{name}: a result that is none": (name, "CHECK", conf | {"prevResult": {"ips": 3}}, {}),
                f"{name}: a result of nothing": (name, "CHECK", conf | {"prevResult": {"ips": []}}, {}),
                f"{name}: a long name": (name, "ADD", conf, {"ifname": "interface0123456"}),
            }
    return calls


# These calls reach what all plugins share, so one plugin is enough.
WRONG = _list_wrong() | {
    "a name that is a path": (scene.INTERFACE, "DEL", _BRIDGE | {"name": "../x"}, {}),
    "a verb of a later version": (scene.INTERFACE, "STATUS", _BRIDGE | {"cniVersion": "0.4.0"}, {}),
    "an IPAM that is not there": (scene.INTERFACE, "ADD", _BRIDGE | {"ipam": {"type": "none"}}, {}),
    "no result before": (scene.PORTS, "CHECK", BASE | {"type": scene.PORTS}, {}),
    "no verb": (scene.INTERFACE, "", _BRIDGE, {}),
    "another verb": (scene.INTERFACE, "MEND", _BRIDGE, {}),
    "no variables": (scene.INTERFACE, "ADD", _BRIDGE, {"env": {"CNI_IFNAME": "", "CNI_CONTAINERID": ""}}),
    "an ID that is a path": (scene.IPAM, "ADD", configuration(scene.IPAM), {"container_id": "../c"}),
    "arguments of another kind": (scene.INTERFACE, "ADD", _BRIDGE, {"args": "MAC"}),
}


def in_order(verb: str, plugins: list[T]) -> list[T]:
    """Return the plugins of a network in the order in which a runtime calls the verb."""
    return plugins[::-1] if verb in {"DEL", "GC"} else plugins

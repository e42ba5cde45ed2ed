"""Every plugin that plugins/*/plugin.toml declares, as a subject of the tests that run with all of them.

A test takes its plugins, its configurations and its networks from here, so that a new plugin needs its own
folder and no other file. docs/testing.md lists the data that a folder may have.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from plugin_table import CHAINED, INTERFACE, IPAM, declared
from tests.support import scene
from tests.support.kernel import has_all

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox
    from plugin_table import Declared

Json = dict[str, Any]

BACKENDS = ("nftables", "iptables")
_GONE_S = 60
NONE_VALID: Json = {"cni.dev/valid-attachments": []}
PLUGINS: dict[str, Declared] = {plugin.names[0]: plugin for plugin in declared()}
NEEDING_SERVER = [name for name, plugin in PLUGINS.items() if plugin.needs_server]


def names(*kinds: str) -> list[str]:
    """Return the names of the plugins of these kinds that need no server."""
    return [name for name, plugin in PLUGINS.items() if plugin.kind in kinds and not plugin.needs_server]


def read_data(name: str, file: str) -> Any:
    """Return the content of a JSON file in the plugin's tests/data, None if the plugin does not have it."""
    path = PLUGINS[name].folder / "tests" / "data" / file
    return json.loads(path.read_text()) if path.exists() else None


def example(name: str) -> Json:
    """Return the plugin's own keys of a configuration that ADD accepts on an empty host."""
    found: Json = read_data(name, "example.json") or {}
    return found


def full_keys(name: str) -> Json:
    """Return more keys of the plugin: all that it can do at once."""
    found: Json = read_data(name, "full.json") or {}
    return found


def second_keys(name: str) -> Json:
    """Return the keys that differ for a second container on the same host."""
    found: Json = read_data(name, "second.json") or {}
    return found


def configuration(name: str, backend: str = "", /, **keys: Any) -> Json:
    """Return a whole configuration of the plugin; `keys` replace others. Without `backend` it chooses one."""
    chosen = {PLUGINS[name].backend_key: backend} if backend and PLUGINS[name].backend_key else {}
    return {"cniVersion": "1.1.0", "name": "net1", "type": name, **example(name), **chosen, **keys}


def chained(name: str, backend: str = "", /, **keys: Any) -> Json:
    """Return the plugin's configuration as a part of a network: without prevResult, with the usual IPAM."""
    conf = configuration(name, backend, **keys)
    conf.pop("prevResult", None)
    if "ipam" in conf and "ipam" not in keys:
        conf["ipam"] = ipam(scene.IPAM)
    return conf


def ipam(name: str) -> Json:
    """Return the "ipam" object that makes an interface plugin ask this IPAM plugin."""
    own: Json = example(name).get("ipam", {})
    return own | {"type": name}


def prepare(host: Host, *plugins: str) -> None:
    """Add to a host what ADD of the examples of these plugins needs, unless it has it.

    That is a link with default routes, or a device that ADD moves. A virtual device ends with its container.
    """
    if any(PLUGINS[each].needs_uplink for each in plugins):
        # The first use makes it.
        assert host.outside
    if any(PLUGINS[each].needs_device for each in plugins):
        add_device(host)


def add_device(host: Host) -> None:
    """Add `spare0` to a host, unless it has it: a veth whose other end is in the namespace "spare"."""
    if "spare" not in host.run(["ls", "/run/netns"]).split():
        host.sandbox("spare")
    deadline = time.monotonic() + _GONE_S
    while "spare0" not in host.links():
        # The kernel may still be removing an earlier one, which has ended with its container.
        if "other" not in host.run(["ip", "-n", "spare", "-br", "link"]):
            own, peer = ["address", "02:00:00:00:00:a0"], ["address", "02:00:00:00:00:ff", "netns", "spare"]
            host.run(["ip", "link", "add", "spare0", *own, "type", "veth", "peer", "name", "other", *peer])
        elif time.monotonic() > deadline:
            raise TimeoutError(f"spare0 is there {_GONE_S} s after its namespace was removed")


def add_link(sandbox: Sandbox, result: Json) -> None:
    """Add eth0 with the addresses of a result to a container, as a plugin before would have."""
    lines = ["link add eth0 type veth peer name other", "link set eth0 up", "link set other up"]
    lines += [
        f"addr add {each['address']} dev eth0" + " nodad" * (":" in each["address"]) for each in result["ips"]
    ]
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def wrong(name: str) -> list[Json]:
    """Return keys of configurations that the plugin must refuse with code 7."""
    return [configuration(name, **keys) for keys in read_data(name, "wrong.json") or []]


def asks(name: str) -> set[str]:
    """Return the plugins that the plugin executes in a network: its IPAM plugin."""
    return {scene.IPAM} if PLUGINS[name].kind == INTERFACE and "ipam" in example(name) else set()


def chain(subject: str, backend: str = "", *, full: bool = True) -> list[Json]:
    """Return the usual network with a plugin in it, in the order of ADD.

    A `full` one has the keys of each plugin's full.json, too. An interface plugin takes the place of the
    usual one, an IPAM plugin that of the usual IPAM plugin. A chained plugin comes last.
    """
    kind = PLUGINS[subject].kind
    types = list(scene.CHAIN)
    if kind == INTERFACE:
        types[types.index(scene.INTERFACE)] = subject
    elif kind == CHAINED and subject not in types:
        types.append(subject)
    confs = [chained(each, backend, **(full_keys(each) if full else {})) for each in types]
    if kind == IPAM:
        confs[types.index(scene.INTERFACE)]["ipam"] = ipam(subject)
    return confs


def subjects(*, only_with_state: bool = False) -> list[str]:
    """Return plugins whose chains together have every plugin that needs no server."""
    usual = {*scene.CHAIN, scene.IPAM} - {scene.INTERFACE}
    return [
        name
        for name, plugin in PLUGINS.items()
        if name not in usual | set(NEEDING_SERVER) and (plugin.keeps_state or not only_with_state)
    ]


def subjects_here(*, only_with_state: bool = False) -> list[str]:
    """Return the subjects that the running kernel can run: for a test that calls them one after another."""
    every = subjects(only_with_state=only_with_state)
    return [name for name in every if has_all(PLUGINS[name].needs_kernel)]


def parts() -> list[str]:
    """Return the plugins whose calls tests cut short: all but those that lose nothing, with the usual chain.

    An IPAM plugin is called by the interface plugin of its chain. The usual IPAM plugin is in every chain.
    A device can be in one container only, and these tests have two.
    """
    others = [name for name in subjects(only_with_state=True) if name not in scene.CHAIN]
    return [*scene.CHAIN, *(name for name in others if not PLUGINS[name].needs_device)]


def called(part: str) -> str:
    """Return the plugin that a runtime calls for a part: for an IPAM plugin the interface plugin."""
    return scene.INTERFACE if PLUGINS[part].kind == IPAM else part

"""Attach a running container to one more network, and detach it: `pycni network connect` and `disconnect`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.addresses import parse_ip
from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.kernel import link
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni.runtime.derive import RuntimeArgs
from cni.runtime.network import compact, parse_network
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.containers import Container
    from cni.runtime.network import Network, PluginConf

_LOCK = Path("/run/pycni/connect.lock")
_LOCK_TIMEOUT_S = 60
# The lowest: a network that is connected later does not take over the default route.
LAST = -100
_PRIORITY, _IPS, _MAC, _DNS = "gatewayPriority", "ips", "mac", "dns"
ALIASES, PORTS = "aliases", "portMappings"
# The arguments of one attachment, which others of the container do not share.
_OWN_ARGS = {"IP", "MAC", "GATEWAY", "IgnoreUnknown"}


class Wish(NamedTuple):
    """The options of an attachment. `priority` None is what the network's list says.

    `ports` are values of the capability `portMappings`. `name` is that of a container without attachments.
    `servers` are those that a network with names asks for this container.
    """

    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac: str = ""
    priority: int | None = None
    ports: tuple[Mapping[str, Any], ...] = ()
    name: str = ""
    servers: tuple[str, ...] = ()


@contextmanager
def changing_attachments() -> Iterator[None]:
    """Hold the lock on attachments of running containers. Raise CniError 11 if another process holds it."""
    files.ensure_directory(_LOCK.parent)
    with locked(_LOCK, _LOCK_TIMEOUT_S):
        yield


@contextmanager
def changing_containers(runtime: Runtime, container: Container) -> Iterator[Container]:
    """Hold the lock on attachments of running containers. Yield the container as the cache has it now."""
    with changing_attachments():
        runtime.cache.remove_unfinished()
        entries = [each for each in runtime.cache.list_entries() if each.container_id == container.id]
        yield container._replace(entries=tuple(entries))


def connect(runtime: Runtime, network: Network, container: Container, wish: Wish) -> str:
    """Attach a running container at the next free "ethN". Return that name.

    The network gets the lowest priority unless `wish` has one. Raise CniError 105 if the container is on the
    network. A failed ADD is undone. If this process is killed, the cache has an attachment without a result,
    which the next `connect` or `disconnect` removes.
    """
    if wish.priority is None:
        wish = wish._replace(priority=LAST)
    return attach(runtime, network, container, wish, is_announced=True)[0]


def attach(
    runtime: Runtime, network: Network, container: Container, wish: Wish, *, is_announced: bool = False
) -> tuple[str, Mapping[str, Any]]:
    """Attach a container at the next free "ethN", as `connect`. Return that name and the result.

    An attachment need not be announced if the caller's end proves that it is gone.
    """
    for each in wish.addresses:
        _check_address(each)
    with changing_containers(runtime, container) as locked_container:
        present = locked_container.of_network(network.name)
        if any(each.result for each in present):
            raise CniError(
                Code.ALREADY_EXISTS,
                f"container {container.id} is already connected to network {network.name}",
                "Disconnect it first, or connect it to another network.",
            )
        for unfinished in present:
            # With the lock held no ADD of this command runs: an earlier one was killed.
            detach(runtime, unfinished)
        others = tuple(each for each in locked_container.entries if each not in present)
        current = locked_container._replace(entries=others)
        network = _with_wished(network, wish)
        arguments = _arguments(network, current, wish)
        result = runtime.add(network, arguments, undo=True, is_announced=is_announced)
        _verify(runtime, network, arguments, wish, result)
        return arguments.ifname, result


def disconnect(runtime: Runtime, name: str, container: Container) -> None:
    """Detach a running container from a network, and from no other. Raise CniError 3 if it is not on it."""
    with changing_containers(runtime, container) as current:
        entries = current.of_network(name)
        if not entries:
            raise CniError(
                Code.UNKNOWN_CONTAINER,
                f"container {container.id} is not connected to network {name}",
                'Run "pycni show" for its networks.',
            )
        for each in entries:
            detach(runtime, each)


def detach(runtime: Runtime, entry: Entry) -> None:
    """Detach a cached attachment, by the configuration of its ADD."""
    network = parse_network(entry.config, "in the result cache")
    runtime.delete(network, RuntimeArgs(entry.container_id, entry.sandbox, entry.ifname))


def _check_address(text: str) -> None:
    try:
        parse_ip(text)
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIG, f"invalid value for --ip: {error}") from error


def _with_wished(network: Network, wish: Wish) -> Network:
    """Return the network with capabilities for the wish that its list lacks.

    The result cache keeps this form, so that CHECK and DEL get the same values.
    """
    if wish.priority is not None and _PRIORITY not in network.capabilities:
        network = _with_capability(network, network.plugins[0], _PRIORITY)
    for plugin in network.plugins:
        if wish.servers and ALIASES in plugin.capabilities and _DNS not in plugin.capabilities:
            network = _with_capability(network, plugin, _DNS)
    return network


def _with_capability(network: Network, plugin: PluginConf, capability: str) -> Network:
    capabilities = dict.fromkeys(sorted(plugin.capabilities | {capability}), True)
    own = {key: value for key, value in plugin.document.items() if key.lower() != "capabilities"}
    document = own | {"capabilities": capabilities}
    changed = replace(plugin, capabilities=frozenset(capabilities), document=document)
    plugins = tuple(changed if each is plugin else each for each in network.plugins)
    text = decode_object(network.text, network.file) | {"plugins": [each.document for each in plugins]}
    return replace(network, plugins=plugins, text=compact(text))


def _free_name(container: Container) -> str:
    """Return the first "ethN" that the container's namespace and the result cache do not have."""
    with open_netns(container.netns) as ns, Netlink(ns) as inside:
        taken = {each.name for each in link.list_links(inside)}
    taken |= {each.ifname for each in container.entries}
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def _arguments(network: Network, container: Container, wish: Wish) -> RuntimeArgs:
    known = network.capabilities
    # The names of the container or pod.
    args = {key: value for each in container.entries for key, value in each.args if key not in _OWN_ARGS}
    if wish.name:
        args["K8S_POD_NAME"] = wish.name
    capability_args: dict[str, Any] = {
        **({_PRIORITY: wish.priority} if wish.priority is not None else {}),
        **({_DNS: {"servers": list(wish.servers)}} if wish.servers else {}),
        **({PORTS: [dict(each) for each in wish.ports]} if wish.ports else {}),
    }
    if wish.addresses and _IPS in known:
        capability_args[_IPS] = list(wish.addresses)
    elif wish.addresses:
        args["IP"] = ",".join(wish.addresses)
    if wish.mac and _MAC in known:
        capability_args[_MAC] = wish.mac
    elif wish.mac:
        args["MAC"] = wish.mac
    if wish.aliases:
        if ALIASES not in known:
            raise CniError(
                Code.INVALID_CONFIG,
                f"no plugin of network {network.name} answers names",
                'Leave out --alias, or add a plugin with the capability "aliases" to the network.',
            )
        capability_args[ALIASES] = {network.name: list(wish.aliases)}
    pairs = (("IgnoreUnknown", "1"), *args.items())
    return RuntimeArgs(container.id, container.netns, _free_name(container), pairs, capability_args)


def _verify(
    runtime: Runtime, network: Network, arguments: RuntimeArgs, wish: Wish, result: Mapping[str, Any]
) -> None:
    """Detach again and raise CniError 7 if the plugins have ignored an address."""
    given = {str(ip_interface(each).ip) for each in _addresses(result)}
    ignored = [each for each in wish.addresses if str(parse_ip(each)) not in given]
    if not ignored:
        return
    runtime.delete(network, arguments)
    raise CniError(
        Code.INVALID_CONFIG,
        f"the plugins of network {network.name} did not assign {', '.join(ignored)}",
        "Choose addresses of the network's subnets, one of each.",
    )


def _addresses(result: Mapping[str, Any]) -> Iterable[str]:
    """Return the addresses of a result of any version."""
    listed = [each for each in result.get("ips") or [] if isinstance(each, dict)]
    old = [result.get("ip4"), result.get("ip6")]
    yield from (str(each["address"]) for each in listed if each.get("address"))
    yield from (str(each["ip"]) for each in old if isinstance(each, dict) and each.get("ip"))

"""Publish more ports of a running container, and withdraw ports: `pycni publish` and `unpublish`.

The plugins that publish ports get one more ADD, with the result that the cache has and with all ports. Then
the ports are written to the result cache, so that CHECK, repair and DEL get the same ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.addresses import parse_ip
from cni.errors import CniError, Code, ErrorList
from cni.firewall.intents import Owner
from cni.hostports import ledger
from cni.request import Verb
from cni.runtime.chain import in_version
from cni.runtime.connect import PORTS as CAPABILITY
from cni.runtime.connect import changing_containers
from cni.runtime.derive import RuntimeArgs, plugin_stdin
from cni.runtime.network import parse_network
from cni.runtime.observe import list_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.containers import Container
    from cni.runtime.network import Network, PluginConf
    from cni.runtime.observe import PublishedPort


class Port(NamedTuple):
    """A port to publish or to withdraw. To withdraw, `container_port` 0 and `host_ip` "" match any."""

    host_port: int
    container_port: int = 0
    protocol: str = "tcp"
    host_ip: str = ""

    def __str__(self) -> str:
        address = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        return f"{address}:{self.host_port}/{self.protocol}".lstrip(":")

    def names(self, claimed: Port) -> bool:
        """Return whether this names a claimed port, whose container port is not known."""
        is_same = (claimed.host_port, claimed.protocol) == (self.host_port, self.protocol)
        return is_same and self.host_ip in {"", claimed.host_ip}

    def matches(self, published: PublishedPort) -> bool:
        """Return whether this names a published port."""
        return (
            (published.host_port, published.protocol) == (self.host_port, self.protocol)
            and self.container_port in {0, published.container_port}
            and self.host_ip in {"", published.host_ip}
        )

    def shadows(self, published: PublishedPort) -> bool:
        """Return whether packets to this port are packets to a published port, too."""
        is_same = (published.host_port, published.protocol) == (self.host_port, self.protocol)
        return is_same and ("" in {self.host_ip, published.host_ip} or self.host_ip == published.host_ip)


def publish(
    runtime: Runtime, container: Container, network: str, ports: Sequence[Port], clients: Sequence[str]
) -> None:
    """Publish ports beside those that the container has, to these clients only if there are any.

    `network` is one of the container's, "" for the first that publishes ports. Raise CniError 103 if a port
    is taken. Then all is as before.
    """
    added = [show_port(each, clients) for each in ports]

    def extend(present: Sequence[Any], _claimed: Collection[Port]) -> list[Any]:
        for each in [one for mapping in present for one in _parse(mapping)]:
            same = [port for port in ports if port.shadows(each)]
            if same:
                raise CniError(
                    Code.PORT_TAKEN,
                    f"container {container.id} has published {same[0]} already",
                    "Withdraw it first with pycni unpublish.",
                )
        return [*present, *added]

    _change(runtime, container, network, extend)


def unpublish(runtime: Runtime, container: Container, network: str, ports: Sequence[Port]) -> None:
    """Withdraw ports. Raise CniError 3 if the container has not published one of them.

    A port that is only claimed is one of a `publish` that was killed.
    """

    def reduce(present: Sequence[Any], claimed: Collection[Port]) -> list[Any]:
        kept = list(present)
        for port in ports:
            remaining = [each for each in kept if not any(map(port.matches, _parse(each)))]
            if len(remaining) == len(kept) and not any(map(port.names, claimed)):
                raise CniError(
                    Code.UNKNOWN_CONTAINER,
                    f"container {container.id} has not published {port}",
                    'Run "pycni show" for its ports.',
                )
            kept = remaining
        return kept

    _change(runtime, container, network, reduce)


def show_port(port: Port, clients: Sequence[str] = ()) -> dict[str, Any]:
    """Return the value of the capability for a port."""
    return {
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": port.protocol,
        **({"hostIP": port.host_ip} if port.host_ip else {}),
        **({"allowFrom": list(clients)} if clients else {}),
    }


def _parse(mapping: Any) -> list[PublishedPort]:
    return list_ports({CAPABILITY: [mapping]})


def _change(
    runtime: Runtime,
    container: Container,
    network: str,
    change: Callable[[Sequence[Any], Collection[Port]], list[Any]],
) -> None:
    """Replace the ports of an attachment by those that `change` returns for cached and other claimed ones.

    The cache is written last: whichever ports it has, a DEL removes all.
    """
    with changing_containers(runtime, container) as current:
        entry, parsed = _choose(current, network)
        plugins = [each for each in parsed.plugins if CAPABILITY in each.capabilities]
        present = entry.capability_args.get(CAPABILITY) or []
        wanted = change(present, _list_claimed(entry) - _list_listed(present))
        for each in plugins:
            _require_own(runtime, parsed, each)
        changed = replace(entry, capability_args={**entry.capability_args, CAPABILITY: wanted})
        try:
            for each in plugins:
                _apply(runtime, parsed, each, entry, changed)
            runtime.cache.write(changed)
        except CniError:
            # A plugin that fails has undone its own part.
            undoing = ErrorList()
            for each in plugins:
                undoing.attempt(_apply, runtime, parsed, each, changed, entry)
            undoing.attempt(runtime.cache.write, entry)
            raise


def _list_claimed(entry: Entry) -> set[Port]:
    """Return the ports of an attachment in the ledger, also those of a `publish` that was killed."""
    held = ledger.list_held(Owner(entry.network, entry.container_id, entry.ifname))
    return {Port(each.host_port, 0, each.protocol, str(each.host_ip or "")) for each in held}


def _list_listed(mappings: Sequence[Any]) -> set[Port]:
    """Return the ports of the capability as `_list_claimed` does."""
    ports = [port for each in mappings for port in _parse(each)]
    return {
        Port(each.host_port, 0, each.protocol, str(parse_ip(each.host_ip)) if each.host_ip else "")
        for each in ports
    }


def _choose(container: Container, name: str) -> tuple[Entry, Network]:
    """Return the attachment that publishes ports, and its network: one with ports before others."""
    entries = [
        each for each in container.entries if name in {"", each.network} and each.config and each.result
    ]
    pairs = [(each, parse_network(each.config, "in the result cache")) for each in entries]
    usable = [
        (each, network)
        for each, network in pairs
        if any(CAPABILITY in plugin.capabilities for plugin in network.plugins)
    ]
    if not usable:
        networks = ", ".join(sorted({each.network for each in container.entries}))
        raise CniError(
            Code.INVALID_CONFIG,
            f"container {container.id} has no network{f' {name}' if name else ''} that publishes ports",
            f'Add a plugin with the capability "{CAPABILITY}" to one of: {networks}.',
        )
    return min(usable, key=lambda pair: (not pair[0].capability_args.get(CAPABILITY), pair[0].ifname))


def _require_own(runtime: Runtime, network: Network, plugin: PluginConf) -> None:
    """Raise CniError 7 for a plugin of another suite, whose second ADD may duplicate rules."""
    if not runtime.ask_own(Verb.LINT, plugin, plugin_stdin(network, plugin)).strip():
        raise CniError(
            Code.INVALID_CONFIG,
            f"plugin {plugin.type} cannot change the ports of a running container",
            "Install this suite's plugin of that name.",
        )


def _apply(runtime: Runtime, network: Network, plugin: PluginConf, before: Entry, after: Entry) -> None:
    """Run one more ADD of a plugin with the ports of `after`, after a DEL if the container has others.

    An ADD with fewer ports may leave rules that lead to the former ones.
    """
    result = in_version(after.result, network)
    arguments = RuntimeArgs(after.container_id, after.sandbox, after.ifname, after.args)
    wanted = after.capability_args.get(CAPABILITY) or []
    is_more = all(each in wanted for each in before.capability_args.get(CAPABILITY) or [])
    is_more = is_more and _list_claimed(after) <= _list_listed(wanted)
    for verb, entry in ((Verb.DEL, before), (Verb.ADD, after)):
        if (verb == Verb.DEL and is_more) or (verb == Verb.ADD and not wanted):
            continue
        stdin = plugin_stdin(network, plugin, result, entry.capability_args)
        runtime.run(verb, plugin, stdin, arguments)

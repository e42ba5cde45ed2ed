"""Entries of plugins in the lists that `pycni network create` writes.

A plugin states its entry as the value PART of its module `network`. A plugin without that module is in no
such list. All functions are pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.result import IpAddress, IpNetwork

Json = dict[str, Any]

# Places in a list: the plugin that makes the interface comes first.
INTERFACE, PORTS, FILTER, NAMES = 10, 20, 30, 40


class Subnet(NamedTuple):
    """A subnet of the network. `pool` are the addresses to assign, None for all of the subnet."""

    network: IpNetwork
    gateway: IpAddress | None = None
    pool: IpNetwork | None = None

    @property
    def first(self) -> IpAddress:
        """The first address of `pool` that a container can have."""
        network = self.pool or self.network
        return network.network_address + (network.network_address == self.network.network_address)

    @property
    def last(self) -> IpAddress:
        """The last address of `pool` that a container can have."""
        network = self.pool or self.network
        is_broadcast = network.version == 4 and network.broadcast_address == self.network.broadcast_address
        return network.broadcast_address - int(is_broadcast)


class Wanted(NamedTuple):
    """The network that a person wants.

    `link` is a name for a link of the host that no other network has. `ipam` is the "ipam" object for the
    plugin that makes the interface. `options` are those of `--opt`, by their names. With `has_names`
    containers find each other by name, and `nameservers` answer for all other names.
    """

    driver: str
    link: str
    subnets: tuple[Subnet, ...] = ()
    is_internal: bool = False
    is_isolated: bool = False
    mtu: int = 0
    nameservers: tuple[str, ...] = ()
    options: Mapping[str, str] = {}
    ipam: Mapping[str, Any] = {}
    has_names: bool = True


class Part(NamedTuple):
    """A plugin's entry in a list.

    `entry` returns the plugin's entry in the list, None if it is not needed. `place` orders the entries.
    `drivers` are the words of `--driver` for which the plugin makes the interface. `needs_subnet` says that
    the subnet is one of a network outside, so that no free one can be chosen, and `has_subnet` is false if
    the network has no addresses. `ipam` returns an "ipam"
    object, for a plugin that assigns the addresses of networks with subnets. `options` are the names of
    `--opt` that the plugin reads, by driver.
    """

    place: int = INTERFACE
    entry: Callable[[Wanted], Json | None] | None = None
    drivers: tuple[str, ...] = ()
    needs_subnet: bool = False
    has_subnet: bool = True
    ipam: Callable[[Wanted], Json] | None = None
    options: Mapping[str, tuple[str, ...]] = {}


def parent_entry(type_: str, wanted: Wanted, *capabilities: str) -> Json:
    """Return the entry of a plugin whose network is the one of a link of the host.

    The gateway is a router outside, to which an internal network has no route.
    """
    options = wanted.options
    mode = options.get("mode") or options.get(f"{type_}_mode")
    routes = [{"dst": f"{each.network.network_address.__class__(0)}/0"} for each in wanted.subnets]
    return {
        "type": type_,
        **({"master": options["parent"]} if "parent" in options else {}),
        **({"mode": mode} if mode else {}),
        **({"mtu": wanted.mtu} if wanted.mtu else {}),
        "capabilities": dict.fromkeys(capabilities, True),
        "ipam": {**wanted.ipam, **({} if wanted.is_internal else {"routes": routes})},
    }


def is_on(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return an option that is "true" or "false", or 1 or 0. Raise ValueError for another value."""
    words = {"true": True, "1": True, "false": False, "0": False}
    value = options.get(name)
    if value is None:
        return default
    if value.lower() not in words:
        raise ValueError(f'"{name}" must be true or false, got "{value}"')
    return words[value.lower()]

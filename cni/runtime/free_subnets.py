"""Choose subnets for new networks: the first of the pools that nothing on this host uses.

The pools are in `/etc/cni/pycni/network.json`, as in the file daemon.json of Docker:
`{"pools": [{"base": "10.89.0.0/16", "size": 24}]}`. The default are the pools of podman.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.addresses import parse_exact_network, parse_network
from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.ipam.leases import Leases
from cni.kernel import addr, route
from cni.kernel.rtnetlink import Netlink
from cni.runtime.network import fold, subnets
from cni.state import files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.result import IpNetwork
    from cni.runtime.network import Network

SETTINGS = Path("/etc/cni/pycni/network.json")
_LEASES = Path("/var/lib/cni/networks")
_EXAMPLE = 'Example: {"pools": [{"base": "10.89.0.0/16", "size": 24}]}.'


class Pool(NamedTuple):
    """Subnets to choose from: those of `base` with a prefix of `size` bits."""

    base: IpNetwork
    size: int


_USUAL = tuple(
    Pool(ip_network(each), 24)
    for each in ("10.89.0.0/16", "10.90.0.0/15", "10.92.0.0/14", "10.96.0.0/11", "10.128.0.0/9")
)


class Used(NamedTuple):
    """A network that is in use, and its user, as "a route of this host"."""

    network: IpNetwork
    user: str


def read_pools(path: Path = SETTINGS) -> tuple[Pool, ...]:
    """Return the pools of the settings, or the default ones. Raise CniError 6, 7 or 106."""
    text = files.read(path)
    if text is None:
        return _USUAL
    listed = fold(decode_object(text, str(path))).get("pools", [])
    try:
        return tuple(_pool(fold(each)) for each in listed) or _USUAL
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CniError(
            Code.INVALID_CONFIG, f"could not read the pools in {path}: {reason}", _EXAMPLE
        ) from error


def _pool(conf: dict[str, object]) -> Pool:
    base, size = parse_exact_network(str(conf["base"])), conf["size"]
    if type(size) is not int or not base.prefixlen <= size <= base.max_prefixlen - 2:
        raise ValueError(f'"size" of {base} must be a number, {base.prefixlen} to {base.max_prefixlen - 2}')
    return Pool(base, size)


def list_used(networks: Iterable[Network]) -> list[Used]:
    """Return what is in use: by configured networks, by routes and addresses of the host, and by leases."""
    used = [
        Used(each, f'network "{network.name}"') for network in networks for each in _parsed(subnets(network))
    ]
    with Netlink() as host:
        routes = [each.dst for each in route.list_routes(host, 0)]
        addresses = [each.address.network for each in addr.list_addrs(host) if each.is_global]
    used += [Used(each, "a route of this host") for each in routes if each.prefixlen]
    used += [Used(each, "an address of this host") for each in addresses if each.prefixlen]
    return [*used, *_leased()]


def _parsed(texts: Iterable[str]) -> Iterator[IpNetwork]:
    for each in texts:
        # The plugin refuses such a network.
        with suppress(ValueError):
            yield parse_network(each)


def _leased() -> Iterator[Used]:
    with suppress(FileNotFoundError), os.scandir(_LEASES) as folders:
        for folder in folders:
            for lease in Leases(Path(folder.path)).list_top() if folder.is_dir() else ():
                if lease.address is not None:
                    yield Used(ip_network(lease.address), f'a lease of network "{folder.name}"')


def find_overlap(subnet: IpNetwork, used: Iterable[Used]) -> Used | None:
    """Return the first of `used` that has addresses of a subnet, None without one."""
    return next((each for each in used if _overlap(subnet, each.network)), None)


def choose(version: int, pools: Sequence[Pool], used: Sequence[Used]) -> IpNetwork:
    """Return the first free subnet. Raise CniError 102 if there is none.

    Without a pool of IPv6 the subnet is one of a random prefix, as RFC 4193 says.
    """
    for pool in pools:
        if pool.base.version != version:
            continue
        near = [each for each in used if _overlap(pool.base, each.network)]
        if any(pool.base.subnet_of(each.network) for each in near):  # type: ignore[arg-type] # of one version
            continue
        for each in pool.base.subnets(new_prefix=pool.size):
            if find_overlap(each, near) is None:
                return each
    if version == 6 and not any(each.base.version == 6 for each in pools):
        return IPv6Network((b"\xfd" + os.urandom(5) + bytes(10), 64))
    raise CniError(
        Code.POOL,
        f"all subnets of the IPv{version} pools are in use",
        f"Add a pool to {SETTINGS}, or give --subnet.",
    )


def _overlap(one: IpNetwork, other: IpNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)

"""Write the list of a new network: `pycni network create`.

Which plugins the list has, and with which keys, each plugin says itself (`cni.operations.network_part`).
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni import conf
from cni.addresses import parse_exact_network, parse_ip
from cni.errors import CniError, Code
from cni.operations.network_part import NAMES, Part, Subnet, Wanted
from cni.request import check_name
from cni.runtime import conflists, free_subnets
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.plugin import Plugin
    from cni.result import IpAddress, IpNetwork
    from cni.runtime.network import Network

# The key of a list that tells who has made it. Runtimes do not pass it to plugins.
OWN_KEY = "pycni"
_LOCK = Path("/run/pycni/networks.lock")
# The name of a list that is being written, beside the others. No runtime reads it.
_UNFINISHED = f"{files.UNFINISHED_PREFIX}pycni"
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_VERSION, _VERSIONS = "1.0.0", ["0.4.0", "1.0.0", "1.1.0"]
# The words of runtimes for other things than networks.
_RESERVED = {"container", "default", "host", "none", "ns", "private"}
_MTU_OPTIONS = ("mtu", "com.docker.network.driver.mtu")
_ISOLATE_OPTION = "isolate"
_NAMES_OF_BITS = {4: "IPv4", 6: "IPv6"}


class Asked(NamedTuple):
    """The options of `pycni network create`, as written."""

    name: str
    driver: str
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    has_ipv6: bool = False
    is_internal: bool = False
    is_isolated: bool = False
    mtu: int = 0
    options: Mapping[str, str] = {}
    nameservers: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    has_names: bool = True


@contextmanager
def changing_networks(folder: Path) -> Iterator[None]:
    """Hold the lock on the host's networks, whose lists are in a folder. Raise CniError 11 or 106.

    What a `create` that was killed has left in the folder is removed.
    """
    files.ensure_directory(_LOCK.parent)
    with locked(_LOCK):
        files.remove(folder / _UNFINISHED)
        yield


def create(folder: Path, asked: Asked) -> Network:
    """Write the list of a network, whole or not at all. Return the network.

    Raise CniError 7 for wrong options, 105 if the name is taken, and 102 without a free subnet.
    """
    _check_name(asked.name)
    parts = find_parts()
    interface = _find_interface(asked.driver, parts)
    _check_options(asked, parts)
    given = _read_subnets(asked)
    if asked.nameservers:
        _read(parse_ip, asked.nameservers, "--dns")
    with changing_networks(folder):
        networks = _list_others(folder, asked.name)
        subnets = _complete(asked, interface, given, networks)
        document = _document(asked, parts, subnets)
        path = folder / f"pycni-{asked.name}.conflist"
        files.ensure_directory(folder, _FOLDER_MODE)
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if not files.create_exclusive(path, text.encode(), _FILE_MODE, beside=_UNFINISHED):
            raise _taken(asked.name, str(path))
    return conflists.load_file(path)


def find_parts() -> list[tuple[Plugin[Any], Part]]:
    """Return the plugins of this installation that add something to lists, in the order of a list."""
    found = []
    for each in pkgutil.iter_modules():
        if not each.name.startswith("cni_"):
            continue
        try:
            part = import_module(f"{each.name}.network").PART
        except ModuleNotFoundError as error:
            if error.name != f"{each.name}.network":
                raise
            continue
        found.append((import_module(each.name).PLUGIN, part))
    return sorted(found, key=lambda pair: (pair[1].place, pair[0].name))


def link_name(network: str) -> str:
    """Return the name of a network's bridge, 15 bytes as Docker's."""
    return f"br-{identifier(network)[:12]}"


def identifier(network: str) -> str:
    """Return the ID of a network: podman's, a hash of the name."""
    return hashlib.sha256(network.encode()).hexdigest()


def _check_name(name: str) -> None:
    check_name(name, Code.INVALID_CONFIG, f'a network cannot have the name "{name}"')
    if name.lower() in _RESERVED:
        raise CniError(
            Code.INVALID_CONFIG,
            f'a network cannot have the name "{name}"',
            "Choose another name: for runtimes this word is no network.",
        )


def _find_interface(driver: str, parts: Sequence[tuple[Plugin[Any], Part]]) -> Part:
    if driver == "host":
        raise CniError(
            Code.INVALID_CONFIG,
            "no CNI network can be the host's own",
            "Start the container with --network host, for which the runtime calls no plugin.",
        )
    for _, part in parts:
        if driver in part.drivers:
            return part
    known = sorted(each for _, part in parts for each in part.drivers)
    raise CniError(
        Code.INVALID_CONFIG, f'no plugin has the driver "{driver}"', f"Use one of: {', '.join(known)}."
    )


def _check_options(asked: Asked, parts: Sequence[tuple[Plugin[Any], Part]]) -> None:
    known = {*_MTU_OPTIONS, _ISOLATE_OPTION}
    known |= {each for _, part in parts for each in part.options.get(asked.driver, ())}
    for each in asked.options:
        if each not in known:
            raise CniError(
                Code.INVALID_CONFIG,
                f'driver "{asked.driver}" has no option "{each}"',
                f"Options are: {', '.join(sorted(known))}.",
            )


def _read_subnets(asked: Asked) -> list[Subnet]:
    """Return the given subnets with their gateways and ranges. Raise CniError 7."""
    networks: list[IpNetwork] = _read(parse_exact_network, asked.subnets, "--subnet")
    gateways: list[IpAddress] = _read(parse_ip, asked.gateways, "--gateway")
    ranges: list[IpNetwork] = _read(parse_exact_network, asked.ranges, "--ip-range")
    subnets = [Subnet(each) for each in networks]
    for number, each in enumerate(networks):
        for before in networks[:number]:
            if before.version == each.version and before.overlaps(each):
                raise _wrong("--subnet", f"{before} and {each} overlap")
    for gateway in gateways:
        place = _place(gateway, gateway, networks, "--gateway")
        subnets[place] = subnets[place]._replace(gateway=gateway)
    for pool in ranges:
        place = _place(pool.network_address, pool.broadcast_address, networks, "--ip-range")
        subnets[place] = subnets[place]._replace(pool=pool)
    return subnets


def _place(first: IpAddress, last: IpAddress, networks: Sequence[IpNetwork], option: str) -> int:
    for number, each in enumerate(networks):
        if first in each and last in each:
            return number
    raise _wrong(option, f"{first} is in no subnet that --subnet gives")


def _read(parse: Any, texts: Sequence[str], option: str) -> list[Any]:
    try:
        return [parse(each) for each in texts]
    except ValueError as error:
        raise _wrong(option, str(error)) from error


def _wrong(option: str, reason: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"invalid value for {option}: {reason}")


def _list_others(folder: Path, name: str) -> list[Network]:
    """Return the configured networks. Raise CniError 105 if one has the name."""
    loaded = conflists.load_all(folder)
    networks = [each for each in loaded if not isinstance(each, conflists.Broken)]
    for each in networks:
        if each.name == name:
            raise _taken(name, each.file)
    return networks


def _taken(name: str, file: str) -> CniError:
    return CniError(
        Code.ALREADY_EXISTS,
        f"network with name {name} already exists",
        f"Choose another name, or remove it first: {file}.",
    )


def _complete(
    asked: Asked, interface: Part, given: list[Subnet], networks: list[Network]
) -> tuple[Subnet, ...]:
    """Return the network's subnets: the given ones, and free ones for families that lack one."""
    if not interface.has_subnet:
        if given or asked.has_ipv6:
            raise _wrong("--driver", f"a network of {asked.driver} has no subnets")
        return ()
    if interface.needs_subnet and not given:
        raise CniError(
            Code.INVALID_CONFIG,
            f"a network of {asked.driver} needs a subnet",
            "Give --subnet and --gateway of the network that the parent link is in.",
        )
    versions = {each.network.version for each in given}
    missing = ({4, 6} if asked.has_ipv6 else {4} if not given else set()) - versions
    if interface.needs_subnet and not missing:
        return tuple(given)
    used = free_subnets.list_used(networks)
    for each in () if interface.needs_subnet else given:
        if overlap := free_subnets.find_overlap(each.network, used):
            raise CniError(
                Code.INVALID_CONFIG,
                f"subnet {each.network} is already used: {overlap.network} is of {overlap.user}",
                "Choose another subnet, or give none: then the network gets a free one.",
            )
    if interface.needs_subnet:
        raise _wrong("--ipv6", f"give --subnet for {' and '.join(_NAMES_OF_BITS[each] for each in missing)}")
    used += [free_subnets.Used(each.network, asked.name) for each in given]
    pools = free_subnets.read_pools()
    return (*given, *(Subnet(free_subnets.choose(each, pools, used)) for each in sorted(missing)))


def _document(
    asked: Asked, parts: Sequence[tuple[Plugin[Any], Part]], subnets: tuple[Subnet, ...]
) -> dict[str, Any]:
    mtu_texts = [asked.options[each] for each in _MTU_OPTIONS if each in asked.options]
    try:
        wanted = Wanted(
            asked.driver,
            link_name(asked.name),
            subnets,
            asked.is_internal,
            asked.is_isolated or asked.options.get(_ISOLATE_OPTION, "").lower() in {"1", "true"},
            asked.mtu or int(mtu_texts[0] if mtu_texts else 0),
            asked.nameservers,
            asked.options,
            has_names=asked.has_names,
        )
        if subnets:
            wanted = wanted._replace(ipam=_ipam(wanted, parts))
        shown = [(part.place, entry) for _, part in parts if part.entry and (entry := part.entry(wanted))]
    except ValueError as error:
        raise _wrong("--opt", str(error)) from error
    entries = [entry for _, entry in shown]
    # Some resolvers ask all servers at once and take the first answer: no other stands beside that of names.
    if asked.nameservers and not any(place == NAMES for place, _ in shown):
        entries[0]["dns"] = {"nameservers": list(asked.nameservers)}
    _check_entries(asked.name, entries, {plugin.name: plugin for plugin, _ in parts})
    return {
        "cniVersion": _VERSION,
        "cniVersions": _VERSIONS,
        "name": asked.name,
        OWN_KEY: {
            "driver": asked.driver,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "internal": asked.is_internal,
            "labels": dict(asked.labels),
            "options": dict(asked.options),
        },
        "plugins": entries,
    }


def _ipam(wanted: Wanted, parts: Sequence[tuple[Plugin[Any], Part]]) -> dict[str, Any]:
    for _, part in parts:
        if part.ipam:
            return part.ipam(wanted)
    raise CniError(Code.INVALID_CONFIG, "no plugin of this installation assigns addresses")


def _check_entries(name: str, entries: list[dict[str, Any]], plugins: Mapping[str, Plugin[Any]]) -> None:
    """Read the entries as their plugins do. Raise their CniError."""
    for entry in entries:
        document = {"cniVersion": _VERSION, "name": name, **entry}
        conf.read(plugins[entry["type"]].conf, document)
        if entry.get("ipam"):
            conf.read(plugins[entry["ipam"]["type"]].conf, document)

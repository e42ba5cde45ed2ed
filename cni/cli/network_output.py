"""The output of `pycni network ls` and `inspect`, and the networks that `--filter` chooses.

rich is imported in functions: only tables need it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import typer

from cni.cli.output import console, print_json, printable, write
from cni.cli.show import LEASES_FOLDER
from cni.runtime import inventory
from cni.runtime.network import bridges, fold, ranges
from cni.runtime.networks import list_attached

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network
    from cni.runtime.networks import Described
    from cni.runtime.observe import Attached

_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_SHORT_ID = 12
_YES, _NO = {"1", "true"}, {"0", "false"}


def choose(
    runtime: Runtime, listed: Iterable[Described], filters: Sequence[tuple[str, str]]
) -> list[Described]:
    """Return the networks that match: of several values of one key one must, but every label."""
    return [
        each
        for each in listed
        if all(
            any(_matches(runtime, each, key, value) for value in _alternatives(filters, key, given))
            for key, given in filters
        )
    ]


def _alternatives(filters: Sequence[tuple[str, str]], key: str, value: str) -> list[str]:
    return [value] if key == "label" else [each for name, each in filters if name == key]


def _matches(runtime: Runtime, described: Described, key: str, value: str) -> bool:
    name = described.network.name
    if key == "name":
        return value in name
    if key == "id":
        return described.id.startswith(value)
    if key == "driver":
        return described.driver == value
    if key == "label":
        label, separator, text = value.partition("=")
        return label in described.labels and (not separator or described.labels[label] == text)
    if key == "created-by":
        return described.is_own == (value == "pycni")
    if key == "dangling" and value.lower() in _YES | _NO:
        return bool(list_attached(runtime, described.network)) == (value.lower() in _NO)
    raise typer.BadParameter(
        f'invalid filter "{key}={value}": write name, id, driver, label, created-by, '
        "or dangling=true or false"
    )


def show_list(listed: Sequence[Described], form: str, *, is_quiet: bool, is_whole: bool) -> None:
    """Print networks as a table, as IDs, as JSON or by the fields of a format."""
    length = None if is_whole else _SHORT_ID
    if form == "json":
        print_json([_row(each) for each in listed])
    elif form:
        for each in listed:
            write(_fill(form, _row(each) | {"ID": each.id[:length]}) + "\n")
    elif is_quiet:
        write("".join(f"{each.id[:length]}\n" for each in listed))
    else:
        _print_table(listed, length)


def _print_table(listed: Sequence[Described], length: int | None) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("NETWORK ID", "NAME", "DRIVER", "SCOPE", box=None, pad_edge=False)
    for each in listed:
        cells = (each.id[:length], each.network.name, each.driver, "local")
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
    console().print(table)


def _row(described: Described) -> dict[str, Any]:
    return {
        "ID": described.id,
        "Name": described.network.name,
        "Driver": described.driver,
        "Scope": "local",
        "Internal": described.is_internal,
        "IPv6": any(":" in each["Subnet"] for each in _subnets(described.network)),
        "CreatedAt": described.created,
        "Labels": described.labels,
        "File": described.network.file,
    }


def _fill(form: str, values: dict[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise typer.BadParameter(f'there is no field "{match[1]}": write one of {", ".join(values)}')
        found = values[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    return _FIELD.sub(value, form)


def show_details(runtime: Runtime, listed: Sequence[Described], form: str) -> None:
    """Print networks with their subnets and containers, in Docker's form."""
    networks = [each.network for each in listed]
    entries = [
        each for each in runtime.cache.list_entries() if each.network in {one.name for one in networks}
    ]
    taken = {each.name: each for each in inventory.take(networks, entries, LEASES_FOLDER)}
    details = [_details(each, taken[each.network.name].attached) for each in listed]
    if form in {"", "json"}:
        print_json(details)
        return
    for each in details:
        write(_fill(form, each) + "\n")


def _details(described: Described, attached: Iterable[Attached]) -> dict[str, Any]:
    network = described.network
    subnets = _subnets(network)
    return {
        "Name": network.name,
        "Id": described.id,
        "Created": described.created,
        "Scope": "local",
        "Driver": described.driver,
        "EnableIPv6": any(":" in each["Subnet"] for each in subnets),
        "IPAM": {"Driver": next((each.ipam for each in network.plugins if each.ipam), ""), "Config": subnets},
        "Internal": described.is_internal,
        "Containers": {each.container_id: _container(each) for each in attached},
        "Options": described.options,
        "Labels": described.labels,
        "Bridges": bridges(network),
        "Plugins": [each.type for each in network.plugins],
        "CreatedByPycni": described.is_own,
        "File": network.file,
    }


def _container(attached: Attached) -> dict[str, str]:
    addresses = attached.addresses
    return {
        "Name": attached.container_name or attached.pod_name or attached.container_id,
        "Interface": attached.ifname,
        "MacAddress": attached.mac,
        "IPv4Address": next((each for each in addresses if ":" not in each), ""),
        "IPv6Address": next((each for each in addresses if ":" in each), ""),
    }


def _subnets(network: Network) -> list[dict[str, str]]:
    folded = [
        fold(each)
        for plugin in network.plugins
        for range_set in ranges(plugin.folded_ipam)
        for each in range_set
        if isinstance(each, dict)
    ]
    return [
        {
            "Subnet": str(each.get("subnet", "")),
            **({"Gateway": str(each["gateway"])} if each.get("gateway") else {}),
            **({"RangeStart": str(each["rangestart"])} if each.get("rangestart") else {}),
            **({"RangeEnd": str(each["rangeend"])} if each.get("rangeend") else {}),
        }
        for each in folded
    ]

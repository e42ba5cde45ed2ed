"""`pycni networks`: what is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.cli.output import FailedError, console, print_json, printable, show_broken, tell_error
from cni.runtime.conflists import Broken, load_all
from cni.runtime.network import subnets

if TYPE_CHECKING:
    from pathlib import Path

    from cni.runtime.network import Network


def run(conf_folder: Path, *, as_json: bool) -> None:
    """Print the networks of a folder; files that are none are told on stderr and make the call fail."""
    found = load_all(conf_folder)
    networks = [each for each in found if not isinstance(each, Broken)]
    broken = [each for each in found if isinstance(each, Broken)]
    if as_json:
        print_json(
            {
                "networks": [_show(each, networks) for each in networks],
                "broken": show_broken(broken),
            }
        )
    elif networks:
        _print_table(networks)
    else:
        console().print(f"No networks are configured in {conf_folder}.")
    for each in broken:
        tell_error(each.error)
    if broken:
        raise FailedError


def _show(network: Network, all_networks: list[Network]) -> dict[str, Any]:
    shown = {
        "name": network.name,
        "cniVersion": network.cni_version,
        "plugins": [plugin.type for plugin in network.plugins],
        "subnets": subnets(network),
        "file": network.file,
    }
    hidden_by = _hidden_by(network, all_networks)
    return shown | ({"hiddenBy": hidden_by} if hidden_by else {})


def _hidden_by(network: Network, all_networks: list[Network]) -> str:
    """Give the file that the name stands for, "" when it is this one."""
    first = next(each.file for each in all_networks if each.name == network.name)
    return "" if first == network.file else first


def _print_table(networks: list[Network]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("NETWORK", "VERSION", "PLUGINS", "SUBNETS", "FILE", box=None, pad_edge=False)
    for network in networks:
        hidden_by = _hidden_by(network, networks)
        cells = [
            network.name,
            network.cni_version,
            ", ".join(plugin.type for plugin in network.plugins),
            ", ".join(subnets(network)),
            network.file + (f" (hidden by {hidden_by})" if hidden_by else ""),
        ]
        style = "dim" if hidden_by else ""
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells), style=style)
    console().print(table)

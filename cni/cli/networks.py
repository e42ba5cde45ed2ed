"""`pycni networks`: list the configured networks.

rich is imported in functions: with --json it is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.cli.output import FailedError, console, print_error, print_json, printable, show_broken, warn
from cni.runtime.chain import Runtime
from cni.runtime.conflists import Broken, load_all
from cni.runtime.lint import list_warnings
from cni.runtime.network import subnets

if TYPE_CHECKING:
    from cni.cli.settings import Settings
    from cni.runtime.network import Network


def run(settings: Settings, *, as_json: bool) -> None:
    """Print the networks of a folder, and warnings about them on stderr.

    Invalid files are reported on stderr too, and make the call fail.
    """
    conf_folder = settings.conf_folder
    loaded = load_all(conf_folder)
    networks = [each for each in loaded if not isinstance(each, Broken)]
    broken = [each for each in loaded if isinstance(each, Broken)]
    warnings = [list_warnings(_runtime(settings), each, networks) for each in networks]
    if as_json:
        print_json(
            {
                "networks": [
                    _show(each, networks) | ({"warnings": lines} if lines else {})
                    for each, lines in zip(networks, warnings, strict=True)
                ],
                "broken": show_broken(broken),
            }
        )
    elif networks:
        _print_table(networks)
    else:
        console().print(f"No networks are configured in {conf_folder}.")
    for each in broken:
        print_error(each.error)
    for network, lines in zip(networks, warnings, strict=True):
        for line in () if as_json else lines:
            warn(network.name, line)
    if broken:
        raise FailedError


def _runtime(settings: Settings) -> Runtime:
    return Runtime(settings.path, settings.env)


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
    """Return the file that takes precedence for the name, "" if that is the network's own file."""
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

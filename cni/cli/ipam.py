"""`pycni ipam`: print the leases of a network's pools.

Modules are imported in functions: each verb loads only what it needs, and `pycni --help` none of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.output import JsonOutput, console, print_json, printable, reporting_errors, verb_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.ipam.leases import Lease
    from cni.runtime.pools import Pools

app = verb_group("Show the addresses of a network.")
_STYLES = {"alive": "green", "gone": "red", "unknown": "yellow"}


@app.command("list")
def list_(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network.")],
    *,
    json: JsonOutput = False,
) -> None:
    """List leases with their holders, and count free addresses."""
    with reporting_errors(as_json=json, root_for="pycni ipam list"):
        from cni.cli.settings import from_env
        from cni.runtime import conflists
        from cni.runtime.pools import take

        pools = take(conflists.find(from_env(os.environ).conf_folder, network))
        states = _states(network)
        if json:
            print_json({"network": network, "folder": str(pools.folder), **_show(pools, states)})
        else:
            _print(pools, states)


def _states(network: str) -> dict[tuple[str, str], str]:
    """Return for each cached attachment whether its namespace exists."""
    from cni.operations.holders import judge
    from cni.runtime.cache import Cache

    return {
        (each.container_id, each.ifname): judge(each.sandbox, each.result)
        for each in Cache().list_entries()
        if each.network == network
    }


def _state(lease: Lease, states: Mapping[tuple[str, str], str]) -> str:
    """Return the state of the holder's namespace; "free" for a lease file without a holder."""
    if lease.is_empty():
        return "free"
    return states.get((lease.container_id, lease.ifname), "unknown")


def _show(pools: Pools, states: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        "sets": [
            {
                "ranges": list(map(str, each.spans)),
                "used": each.used,
                "free": each.free,
                "last": str(each.last) if each.last else None,
            }
            for each in pools.pools
        ],
        "leases": [
            {
                "address": each.name,
                "containerID": each.container_id,
                "ifname": each.ifname,
                "netnsState": _state(each, states),
            }
            for each in pools.leases
        ],
    }


def _print(pools: Pools, states: Mapping[tuple[str, str], str]) -> None:
    from rich.table import Table
    from rich.text import Text

    for pool in pools.pools:
        last = f", {pool.last} allocated last" if pool.last else ""
        line = f"{', '.join(map(str, pool.spans))}: {pool.used} used, {pool.free} free{last}"
        console().print(Text(line))
    if not pools.leases:
        return
    table = Table("ADDRESS", "CONTAINER", "IFNAME", "NETNS", box=None, pad_edge=False)
    for each in pools.leases:
        state = _state(each, states)
        cells = [
            Text(printable(cell), overflow="fold") for cell in (each.name, each.container_id, each.ifname)
        ]
        table.add_row(*cells, Text(state, style=_STYLES.get(state, "dim")))
    console().print(table)

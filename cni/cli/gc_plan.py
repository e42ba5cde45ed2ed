"""`pycni gc --dry-run`: print what GC would remove.

rich is imported in functions: with --json it is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.cli.output import FailedError, console, print_error, print_json, printable
from cni.log import note

if TYPE_CHECKING:
    from cni.runtime.gc_plan import GcPlan


def show(plan: GcPlan, network: str, *, as_json: bool) -> None:
    """Print a table or JSON, and name plugins of other suites. Raises FailedError if a plugin is missing."""
    if as_json:
        print_json(
            {
                "network": network,
                "stale": [each.to_dict() for each in plan.things],
                "cannotTell": list(plan.silent),
                **({"missing": [each.to_dict() for each in plan.missing]} if plan.missing else {}),
            }
        )
    else:
        _print(plan, network)
    if plan.missing:
        raise FailedError


def _print(plan: GcPlan, network: str) -> None:
    if plan.things:
        _print_table(plan)
    else:
        console().print(f"Network {network}: nothing to collect.")
    for each in plan.silent:
        note(f"pycni: plugin {printable(each)} is of another suite and cannot list what its GC would remove")
    for error in plan.missing:
        print_error(error)


def _print_table(plan: GcPlan) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("WHAT", "NAME", "CONTAINER", "IFNAME", "WHY", box=None, pad_edge=False)
    for each in plan.things:
        cells = (each.kind, each.name, each.container_id, each.ifname, each.reason)
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
    console().print(table)

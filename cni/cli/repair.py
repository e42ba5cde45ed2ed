"""`pycni repair`: restore missing objects of attachments, and print what was done for each.

rich is imported in functions: with --json it is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.cli.output import FailedError, console, print_json, printable
from cni.runtime import conflists
from cni.runtime.cache import Cache
from cni.runtime.chain import Runtime
from cni.runtime.repair import DIFFERS, FAILED, GONE, REPAIRED, WELL, repair

if TYPE_CHECKING:
    from cni.cli.settings import Settings
    from cni.runtime.repair import Outcome

_STYLES = {WELL: "green", REPAIRED: "yellow", DIFFERS: "yellow", FAILED: "red", GONE: "dim"}


def run(settings: Settings, name: str, timeout_s: float, *, dry_run: bool, as_json: bool) -> None:
    """Repair the attachments of a network, of all if `name` is "". Raises FailedError if one fails."""
    runtime = Runtime(settings.path, settings.env, Cache(), timeout_s)
    entries = [each for each in runtime.cache.list_entries() if name in {"", each.network}]
    if name and not entries:
        # Raises if there is no such network.
        conflists.find(settings.conf_folder, name)
    outcomes = list(repair(runtime, entries, settings.conf_folder, dry_run=dry_run))
    if as_json:
        print_json({"attachments": [show(each) for each in outcomes]})
    else:
        _print(outcomes)
    if any(each.state == FAILED for each in outcomes):
        raise FailedError


def show(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON of an outcome."""
    return {
        "network": outcome.entry.network,
        "containerID": outcome.entry.container_id,
        "ifname": outcome.entry.ifname,
        "netns": outcome.entry.sandbox,
        "state": outcome.state,
        "repaired": outcome.repaired,
        "problems": outcome.problems,
        "cannotTell": outcome.unasked,
    }


def _print(outcomes: list[Outcome]) -> None:
    from rich.text import Text

    for each in outcomes:
        entry = each.entry
        title = printable(f"{entry.network}  {entry.container_id}  {entry.ifname}  {entry.sandbox}")
        console().print(Text(f"{title}  ") + Text(each.state, style=_STYLES[each.state]))
        for line in each.repaired:
            console().print(Text(f"    {printable(line)}"))
        for line in each.problems:
            console().print(Text(f"    {printable(line)}", style="red"))
        for plugin in each.unasked:
            console().print(
                Text(f"    {printable(plugin)}: not checked, because it is of another suite", style="dim")
            )
    if not outcomes:
        console().print("Nothing is attached.")

"""`pycni watch`: repair attachments as soon as the host has lost a part of them; a line for each loss.

typer is imported in a function: only a wrong value needs it.
"""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cni.cli.helper import installed_command
from cni.cli.output import printable, write
from cni.cli.repair import show
from cni.runtime import conflists, watch_unit
from cni.runtime.cache import Cache
from cni.runtime.chain import Runtime
from cni.runtime.watch import START, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.cli.settings import Settings
    from cni.runtime.watch import Round

JSON = "json"


def run(settings: Settings, network: str, timeout_s: float, *, dry_run: bool, format_: str) -> None:
    """Watch until SIGTERM or SIGINT. Raise CniError 11 if another watch repairs here."""
    if format_ not in {"", JSON}:
        from typer import BadParameter

        raise BadParameter(f'unknown format "{format_}": use "{JSON}"')
    runtime = Runtime(settings.path, settings.env, Cache(), timeout_s)
    if network and not any(each.network == network for each in runtime.cache.list_entries()):
        # Raises if there is no such network.
        conflists.find(settings.conf_folder, network)
    # A verb that ends soon collects no garbage; this one would grow.
    gc.enable()
    report = _print_json if format_ == JSON else _print
    Watch(runtime, settings.conf_folder, network, report, dry_run=dry_run).run()


def print_unit() -> None:
    """Print the unit of the installation whose plugins are in CNI_PATH. Raise CniError 5."""
    write("".join(watch_unit.units(installed_command()).values()))


def _print_json(done: Round) -> None:
    document = {
        "time": _now(),
        "event": done.reason,
        "checked": done.checked,
        "seconds": round(done.seconds, 3),
        "pause": done.pause_s,
        "attachments": [show(each) for each in done.outcomes],
    }
    write(json.dumps(document, ensure_ascii=False) + "\n")


def _print(done: Round) -> None:
    write("".join(f"{line}\n" for line in _lines(done)))


def _lines(done: Round) -> Iterator[str]:
    if START in done.reason:
        yield f"{_now()}  watching {done.checked} attachment{'' if done.checked == 1 else 's'}"
    if done.outcomes and done.reason != START:
        took = f"  ({done.seconds:.2f} s)" if done.seconds else ""
        yield f"{_now()}  {printable(done.reason)}{took}"
    for each in done.outcomes:
        entry = each.entry
        yield "    " + printable(
            f"{entry.network}  {entry.container_id}  {entry.ifname}  {entry.sandbox}  {each.state}"
        )
        yield from (f"        {printable(line)}" for line in (*each.repaired, *each.problems))
    if done.pause_s:
        yield (
            f"    This is deleted again and again. The next repair is in {done.pause_s:g} s at the earliest."
            " Stop the program that deletes it."
        )


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")

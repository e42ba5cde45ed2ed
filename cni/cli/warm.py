"""`pycni warm`: show, start and stop the warm servers, see docs/warm-start.md.

Modules are imported in functions: each verb loads only what it needs, and `pycni --help` none of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.output import JsonOutput, console, print_json, reporting_errors, show_units, verb_group, write

if TYPE_CHECKING:
    from collections.abc import Sequence

app = verb_group("Show, start and stop the warm servers.")

_OFF_FILE = Path("/etc/cni/pycni/warm-off")


@app.command()
def status(*, json: JsonOutput = False) -> None:
    """Show the running servers and their memory."""
    with reporting_errors(as_json=json, root_for="pycni warm status"):
        from cni.warm import control

        reports = [control.status(server) for server in control.find()]
        if json:
            print_json({"servers": reports, "off": _OFF_FILE.exists()})
            return
        if _OFF_FILE.exists():
            console().print(f"Warm start is switched off by {_OFF_FILE}.")
        _print_table(reports)


def _print_table(reports: Sequence[dict[str, Any]]) -> None:
    if not reports:
        console().print("No warm server runs.")
        return
    from rich.table import Table

    table = Table("BUILD", "PID", "UPTIME", "REQUESTS", "WORKERS", "BUSY", "MEMORY", box=None, pad_edge=False)
    for each in reports:
        table.add_row(each["build"], str(each["pid"]), *_figures(each))
    console().print(table)


def _figures(report: dict[str, Any]) -> list[str]:
    if "uptime_s" not in report:
        return ["does not respond"]
    counted = [f"{report['uptime_s']} s", report["requests"], len(report["workers"]), report["busy"]]
    return [*map(str, counted), f"{report['pss_kib'] / 1024:.1f} MiB"]


@app.command()
def start(*, json: JsonOutput = False) -> None:
    """Start the server of the plugins in CNI_PATH."""
    with reporting_errors(as_json=json, root_for="pycni warm start"):
        from cni.warm import control

        server = control.start(_launcher())
        if json:
            print_json({"build": server.build, "pid": server.pid})
        else:
            write(f"The warm server of build {server.build} runs as process {server.pid}.\n")


@app.command()
def stop(*, json: JsonOutput = False) -> None:
    """Stop all servers; running calls finish. The next call starts one again."""
    with reporting_errors(as_json=json, root_for="pycni warm stop"):
        from cni.warm import control

        ended = [server.pid for server in control.stop_all()]
        if json:
            print_json({"ended": ended})
        else:
            listed = ", ".join(map(str, ended))
            write(f"Stopped: {listed}.\n" if ended else "No warm server runs.\n")


@app.command()
def units(
    *,
    folder: Annotated[
        str,
        typer.Option("--write", metavar="FOLDER", help="Write them to FOLDER, such as /etc/systemd/system."),
    ] = "",
    json: JsonOutput = False,
) -> None:
    """Print systemd units that run the server."""
    with reporting_errors(as_json=json):
        from cni.warm import units

        show_units(units.units(_launcher()), units.FOLDER, folder, as_json=json)


def _launcher() -> Path:
    from cni.cli.settings import from_env
    from cni.warm import control

    return control.find_launcher(from_env(os.environ).path)

"""`pycni helper`: show, start and stop the helpers of plugins, see docs/design.md.

Modules are imported in functions: each verb loads only what it needs, and `pycni --help` none of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.output import JsonOutput, console, print_json, reporting_errors, show_units, verb_group, write

if TYPE_CHECKING:
    from cni.service.client import Helper

app = verb_group("Show, start and stop the helpers of plugins.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin.")]
NamePerhaps = Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin.")]


@app.command()
def ls(*, json: JsonOutput = False) -> None:
    """Show the running helpers, what they hold, and their memory."""
    with reporting_errors(as_json=json, root_for="pycni helper ls"):
        from cni.service import control

        reports = [control.report(each) for each in control.find()]
        if json:
            print_json({"helpers": reports})
        elif not reports:
            write("No helper runs.\n")
        else:
            _print_table(reports)


def _print_table(reports: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("NAME", "PID", "UPTIME", "RESTARTS", "HOLDS", "MEMORY", box=None, pad_edge=False)
    for each in reports:
        figures = ["is being restarted", str(each.get("restarts", "")), ""]
        if "uptime_s" in each:
            figures = [f"{each['uptime_s']} s", str(each["restarts"]), str(len(each["holds"]))]
        table.add_row(each["name"], str(each["pid"]), *figures, f"{each['pss_kib'] / 1024:.1f} MiB")
    console().print(table)


@app.command()
def start(name: NamePerhaps = "", *, json: JsonOutput = False) -> None:
    """Start a helper, or all. Each resumes its work from the records."""
    with reporting_errors(as_json=json, root_for="pycni helper start"):
        from cni.service import control

        started = [_find(name)] if name else list(control.list_helpers().values())
        for each in started:
            each.wake()
        names = [each.name for each in started]
        if json:
            print_json({"started": names})
        else:
            write(f"Running: {', '.join(names)}.\n" if names else "No plugin has a helper.\n")


@app.command()
def stop(
    name: NamePerhaps = "",
    *,
    every: Annotated[bool, typer.Option("--all", help="Stop all helpers.")] = False,
    json: JsonOutput = False,
) -> None:
    """Stop a helper. Leases and records remain; the next ADD starts it."""
    with reporting_errors(as_json=json, root_for="pycni helper stop"):
        from cni.service import control

        if bool(name) == every:
            raise typer.BadParameter("name a helper, or use --all")
        if name:
            _find(name)
        ended = control.stop(each for each in control.find() if every or each.name == name)
        if json:
            print_json({"ended": [each.pid for each in ended]})
        else:
            listed = ", ".join(f"{each.name} (process {each.pid})" for each in ended)
            write(f"Stopped: {listed}.\n" if ended else "No helper runs.\n")


@app.command()
def units(
    *,
    folder: Annotated[
        str,
        typer.Option("--write", metavar="FOLDER", help="Write them to FOLDER, such as /etc/systemd/system."),
    ] = "",
    json: JsonOutput = False,
) -> None:
    """Print systemd units that run the helpers."""
    with reporting_errors(as_json=json):
        from cni.service import units

        show_units(units.units(installed_command()), units.FOLDER, folder, as_json=json)


@app.command("run", hidden=True)
def run(name: Name) -> None:
    """Become the helper, with the socket that systemd has passed: for the unit."""
    with reporting_errors(as_json=False, root_for="pycni helper run"):
        _find(name).execute()


@app.command("path", hidden=True)
def path(name: Name) -> None:
    """Print the path of the helper's socket: for the unit."""
    with reporting_errors(as_json=False):
        write(f"{_find(name).path}\n")


def _find(name: str) -> Helper:
    from cni.errors import CniError, Code
    from cni.service import control

    helpers = control.list_helpers()
    if name not in helpers:
        raise CniError(
            Code.INVALID_CONFIG, f'there is no helper "{name}"', f"Name one of: {', '.join(helpers)}."
        )
    return helpers[name]


def installed_command() -> Path:
    """Return the command of the installation whose plugins are in CNI_PATH. Raise CniError 5."""
    from cni.cli.settings import from_env
    from cni.state.executables import launched_tree
    from cni.warm import control

    launcher = control.find_launcher(from_env(os.environ).path)
    return Path(launched_tree(launcher.read_bytes())).parent / "bin/pycni"

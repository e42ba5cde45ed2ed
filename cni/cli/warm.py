"""`pycni warm`: the servers that plugins are served by; docs/warm-start.md tells about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.output import answering, console, print_json, require_verb, write

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    callback=require_verb,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Look at the warm servers, start or stop them.",
)

Json = Annotated[bool, typer.Option("--json", help="For programs: JSON, errors as well.")]

_OFF_FILE = Path("/etc/cni/pycni/warm-off")


@app.command()
def status(*, json: Json = False) -> None:
    """Show which servers run and what they cost."""
    with answering(as_json=json, root_for="pycni warm status"):
        from cni.warm import control

        told = [control.status(server) for server in control.find()]
        if json:
            print_json({"servers": told, "off": _OFF_FILE.exists()})
            return
        if _OFF_FILE.exists():
            console().print(f"Warm start is switched off by {_OFF_FILE}.")
        _print_table(told)


def _print_table(told: Sequence[dict[str, Any]]) -> None:
    if not told:
        console().print("No warm server runs.")
        return
    from rich.table import Table

    table = Table("BUILD", "PID", "UPTIME", "REQUESTS", "WORKERS", "BUSY", "MEMORY", box=None, pad_edge=False)
    for each in told:
        table.add_row(each["build"], str(each["pid"]), *_figures(each))
    console().print(table)


def _figures(told: dict[str, Any]) -> list[str]:
    if "uptime_s" not in told:
        return ["does not answer"]
    counted = [f"{told['uptime_s']} s", told["requests"], len(told["workers"]), told["busy"]]
    return [*map(str, counted), f"{told['pss_kib'] / 1024:.1f} MiB"]


@app.command()
def start(*, json: Json = False) -> None:
    """Start the server of the plugins in CNI_PATH."""
    with answering(as_json=json, root_for="pycni warm start"):
        from cni.warm import control

        server = control.start(_launcher())
        if json:
            print_json({"build": server.build, "pid": server.pid})
        else:
            write(f"The warm server of build {server.build} runs as process {server.pid}.\n")


@app.command()
def stop(*, json: Json = False) -> None:
    """End all servers; calls in hand are finished. The next call starts one again."""
    with answering(as_json=json, root_for="pycni warm stop"):
        from cni.warm import control

        ended = [server.pid for server in control.stop_all()]
        if json:
            print_json({"ended": ended})
        else:
            listed = ", ".join(map(str, ended))
            write(f"Ended: {listed}.\n" if ended else "No warm server runs.\n")


@app.command()
def units(
    *,
    folder: Annotated[
        str, typer.Option("--write", metavar="FOLDER", help="Write them there, /etc/systemd/system for one.")
    ] = "",
    json: Json = False,
) -> None:
    """Print the units by which systemd runs the server."""
    with answering(as_json=json):
        from cni.state.files import write_atomic
        from cni.warm import units

        texts = units.units(_launcher())
        if folder:
            for name, text in texts.items():
                write_atomic(Path(folder) / name, text.encode(), mode=0o644)
        elif json:
            print_json(texts)
        else:
            write("\n".join(f"# {units.FOLDER / name}\n{text}" for name, text in texts.items()))


def _launcher() -> Path:
    from cni.cli.settings import from_env
    from cni.warm import control

    return control.find_launcher(from_env(os.environ).path)

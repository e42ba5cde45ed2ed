"""The command `pycni`: its verbs, arguments and options.

Each verb imports its modules when it runs, so that `pycni --help` and completion start fast.
Exit codes: 0 success, 1 failure (reported in one line), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cni.cli import helper, ipam, names, network, warm
from cni.cli import run as run_command
from cni.cli.output import (
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    FailedError,
    JsonOutput,
    printable,
    reporting_errors,
    stop_writing,
    write,
)
from cni.log import note

if TYPE_CHECKING:
    from typer.models import CommandInfo

_DAY_S = 86_400

app = typer.Typer(
    name="pycni",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    help="Attach network namespaces to CNI networks, and show what is attached.",
    epilog="Environment: CNI_PATH, NETCONFPATH, CAP_ARGS, CNI_ARGS, CNI_IFNAME, as in cnitool.",
)

app.add_typer(network.app, name="network")
app.add_typer(ipam.app, name="ipam")
app.add_typer(warm.app, name="warm")
app.add_typer(helper.app, name="helper")
app.add_typer(names.app, name="dns")


@app.callback()
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Handle options without a verb."""
    if version:
        from cni.cli import verbs

        verbs.print_own_version(as_json=False)
        raise typer.Exit


Name = Annotated[str, typer.Argument(metavar="NETWORK", help='Name of a network: "name" in its file.')]
NamePerhaps = Annotated[
    str, typer.Argument(metavar="NETWORK", help="Name of a network; default: pycni itself.")
]
NetnsPath = Annotated[
    str, typer.Argument(metavar="NETNS", help="Namespace: a name in /run/netns, or a path.")
]
Unused = Annotated[str, typer.Argument(metavar="NETNS", help="Ignored; accepted as in cnitool.")]
Ifname = Annotated[
    str,
    typer.Option("--ifname", "-i", metavar="NAME", help="Link name in NETNS; default: CNI_IFNAME or eth0."),
]
Json = Annotated[bool, typer.Option("--json", help="Print errors as CNI error objects on stdout.")]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", min=0.1, max=_DAY_S, metavar="SECONDS", help="Time limit for each plugin, at most a day."
    ),
]


@app.command()
def add(  # noqa: PLR0913 - the options of the command
    network: Name,
    netns: NetnsPath,
    *,
    ifname: Ifname = "",
    undo: Annotated[bool, typer.Option("--undo", help="Call DEL if ADD fails.")] = False,
    json: Json = False,
    timeout: Timeout = 240,
) -> None:
    """Attach NETNS to NETWORK and print the result."""
    with reporting_errors(as_json=json, root_for="pycni add"):
        from cni.cli import settings, verbs

        verbs.add(settings.from_env(os.environ, ifname), network, netns, timeout, undo=undo)


@app.command()
def check(
    network: Name, netns: NetnsPath, *, ifname: Ifname = "", json: Json = False, timeout: Timeout = 240
) -> None:
    """Check that the attachment is as ADD made it."""
    with reporting_errors(as_json=json, root_for="pycni check"):
        from cni.cli import settings, verbs

        verbs.check(settings.from_env(os.environ, ifname), network, netns, timeout)


@app.command("del")
def delete(
    network: Name, netns: NetnsPath, *, ifname: Ifname = "", json: Json = False, timeout: Timeout = 240
) -> None:
    """Detach NETNS from NETWORK; succeed if it is not attached."""
    with reporting_errors(as_json=json, root_for="pycni del"):
        from cni.cli import settings, verbs

        verbs.delete(settings.from_env(os.environ, ifname), network, netns, timeout)


@app.command()
def gc(
    network: Name,
    _netns: Unused = "",
    *,
    dead_only: Annotated[
        bool, typer.Option("--dead-only", help="Keep attachments that are not proven to be gone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; list what gc would remove and why.")
    ] = False,
    json: Json = False,
    timeout: Timeout = 240,
) -> None:
    """Remove ALL attachments of NETWORK, and stale objects."""
    with reporting_errors(as_json=json, root_for="pycni gc"):
        from cni.cli import settings, verbs

        environment = settings.from_env(os.environ)
        if dry_run:
            verbs.plan_gc(environment, network, timeout, dead_only=dead_only, as_json=json)
        else:
            verbs.gc(environment, network, timeout, dead_only=dead_only)


@app.command()
def repair(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Repair only this network.")] = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Repair nothing; list what is missing.")] = False,
    json: JsonOutput = False,
    timeout: Timeout = 240,
) -> None:
    """Restore missing rules, bridges and ports of attachments."""
    with reporting_errors(as_json=json, root_for="pycni repair"):
        from cni.cli import repair, settings

        repair.run(settings.from_env(os.environ), network, timeout, dry_run=dry_run, as_json=json)


@app.command()
def watch(
    *,
    on_network: Annotated[
        str, typer.Option("--network", metavar="NETWORK", help="Watch only this network.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Repair nothing; print what is missing.")
    ] = False,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help='"json": one object for each line.')
    ] = "",
    unit: Annotated[bool, typer.Option("--unit", help="Print a systemd unit for this and exit.")] = False,
    timeout: Timeout = 240,
) -> None:
    """Repair attachments at once when rules or links disappear."""
    with reporting_errors(as_json=format_ == "json", root_for="" if unit else "pycni watch"):
        from cni.cli import settings, watch

        if unit:
            watch.print_unit()
            return
        environment = settings.from_env(os.environ)
        watch.run(environment, on_network, timeout, dry_run=dry_run, format_=format_)


@app.command()
def status(network: Name, _netns: Unused = "", *, json: Json = False, timeout: Timeout = 240) -> None:
    """Report whether the plugins of NETWORK are ready for ADD."""
    with reporting_errors(as_json=json, root_for="pycni status"):
        from cni.cli import settings, verbs

        verbs.status(settings.from_env(os.environ), network, timeout)


@app.command()
def version(
    network: NamePerhaps = "", _netns: Unused = "", *, json: JsonOutput = False, timeout: Timeout = 240
) -> None:
    """Print the spec versions of NETWORK's plugins or of pycni."""
    with reporting_errors(as_json=json):
        from cni.cli import settings, verbs

        verbs.version(settings.from_env(os.environ), network, timeout, as_json=json)


@app.command()
def networks(*, json: JsonOutput = False) -> None:
    """List the configured networks."""
    with reporting_errors(as_json=json):
        from cni.cli import networks, settings

        networks.run(settings.from_env(os.environ), as_json=json)


@app.command()
def show(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Show only this network.")] = "",
    *,
    json: JsonOutput = False,
    picture: Annotated[
        str, typer.Option("--picture", metavar="FILE", help="Draw them to this SVG file, too.")
    ] = "",
) -> None:
    """Show networks, bridges, containers, addresses, ports."""
    with reporting_errors(as_json=json, root_for="pycni show"):
        from cni.cli import settings, show

        show.run(settings.from_env(os.environ), network, as_json=json, picture=picture)


Ports = Annotated[
    list[str], typer.Argument(metavar="PORT", help="[IP:]HOST:CONTAINER[/PROTOCOL], as in Docker.")
]
OnNetwork = Annotated[
    str,
    typer.Option("--network", metavar="NETWORK", help="Network of the container; default: the first."),
]


@app.command()
def publish(
    container: network.Container,
    ports: Ports,
    *,
    allow_from: Annotated[
        list[str] | None,
        typer.Option("--allow-from", metavar="CIDR", help="Clients that reach the ports; default: all."),
    ] = None,
    on_network: OnNetwork = "",
) -> None:
    """Publish more ports of a running container."""
    with reporting_errors(as_json=False, root_for="pycni publish"):
        from cni.cli import publish, settings

        clients = network.split_values(allow_from)
        environment = settings.from_env(os.environ)
        publish.run(environment, container, ports, network=on_network, clients=clients, is_withdrawn=False)


@app.command()
def unpublish(container: network.Container, ports: Ports, *, on_network: OnNetwork = "") -> None:
    """Withdraw ports of a running container."""
    with reporting_errors(as_json=False, root_for="pycni unpublish"):
        from cni.cli import publish, settings

        environment = settings.from_env(os.environ)
        publish.run(environment, container, ports, network=on_network, clients=(), is_withdrawn=True)


# The first word that is no option begins COMMAND, whose options are its own.
_OF_RUN = {"allow_interspersed_args": False}
app.command("run", help=run_command.HELP, context_settings=_OF_RUN)(run_command.command)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin, as in firewall-log.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help='The folder "plugins" of pycni\'s source tree.')
    ] = Path("plugins"),
) -> None:
    """Write a plugin folder into a source tree of pycni."""
    with reporting_errors(as_json=False):
        from cni.cli import new_plugin

        new_plugin.run(name, folder)


@app.command()
def schema(
    plugin: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="Name of a plugin; without: list all.")
    ] = "",
    *,
    json: Json = False,
) -> None:
    """Print a plugin's configuration as JSON Schema."""
    with reporting_errors(as_json=json):
        from cni.cli import schema

        schema.run(plugin)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the completion script for a shell."""
    with reporting_errors(as_json=False):
        from cni.cli.complete import SCRIPTS

        if shell not in SCRIPTS:
            raise typer.BadParameter(f'no completion for shell "{shell}"; supported: {", ".join(SCRIPTS)}')
        write(SCRIPTS[shell])


@app.command(hidden=True)
def complete(words: Annotated[list[str], typer.Argument()]) -> None:
    """Print the candidates for the last word; the scripts of `completion` call this."""
    with reporting_errors(as_json=False):
        from cni.cli.complete import list_candidates

        for each in list_candidates(typer.main.get_command(app), words):
            write(f"{printable(each.word)}\t{printable(each.about)}\n")


@app.command()
def man() -> None:
    """Print the manual page pycni(1)."""
    with reporting_errors(as_json=False):
        from cni.cli.man import page

        write(page(typer.main.get_command(app)))


def _app_for(word: str) -> typer.Typer:
    """Return the app with one verb or group of verbs, if `word` is one, or the whole app.

    Typer makes objects of all verbs of an app before it looks for one of them: 12 ms for all.
    """
    part = copy(app)
    part.registered_commands = [each for each in app.registered_commands if _name(each) == word]
    part.registered_groups = [each for each in app.registered_groups if each.name == word]
    return part if part.registered_commands or part.registered_groups else app


def _name(command: CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))


def run(arguments: list[str]) -> int:
    """Run one command line. Return its exit code."""
    try:
        arguments = arguments or ["--help"]
        status = _app_for(arguments[0])(arguments, prog_name="pycni", standalone_mode=False)
    except FailedError as error:
        return error.status
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        # Typer prints help itself, outside of `reporting_errors`.
        stop_writing()
        note(f"pycni: cannot write to stdout: {error.strerror}")
        return FAILED
    except Exception as error:
        # Typer's exceptions for wrong usage have no public name.
        if not hasattr(error, "format_message"):
            raise
        note(f"pycni: {printable(error.format_message())} (see pycni --help)")
        return run_command.NOT_RUN if arguments[0] == "run" else WRONG_USAGE
    # Typer turns an interruption into this number and prints nothing.
    if status == INTERRUPTED:
        note('pycni: interrupted; run "pycni del" to remove partial state')
    return status if isinstance(status, int) else 0

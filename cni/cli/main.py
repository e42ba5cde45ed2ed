"""Entry of the command `pycni`: its verbs, arguments and options; each loads what it needs when it runs.

Exit codes: 0 success, 1 failure (told in one line), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cni.cli import ipam, warm
from cni.cli.output import (
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    FailedError,
    answering,
    printable,
    stop_writing,
    write,
)
from cni.log import flush, note

_DAY_S = 86_400

app = typer.Typer(
    name="pycni",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    help="Attach network namespaces to CNI networks by hand, and see what is attached.",
    epilog="Environment: CNI_PATH, NETCONFPATH, CAP_ARGS, CNI_ARGS, CNI_IFNAME, as for cnitool.",
)

app.add_typer(ipam.app, name="ipam")
app.add_typer(warm.app, name="warm")


@app.callback()
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Take the options that go without a verb."""
    if version:
        from cni.cli import verbs

        verbs.print_own_version(as_json=False)
        raise typer.Exit


Name = Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network, as its file says.")]
NamePerhaps = Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network; without: our own.")]
NetnsPath = Annotated[
    str, typer.Argument(metavar="NETNS", help="Namespace: a name in /run/netns, or a path.")
]
Unused = Annotated[str, typer.Argument(metavar="NETNS", help="Not looked at; cnitool wants one here.")]
Ifname = Annotated[
    str,
    typer.Option("--ifname", "-i", metavar="NAME", help="Name of the link in it; else CNI_IFNAME, eth0."),
]
Json = Annotated[bool, typer.Option("--json", help="Errors as a CNI error object on stdout.")]
JsonToo = Annotated[bool, typer.Option("--json", help="For programs: JSON, errors as well.")]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", min=0.1, max=_DAY_S, metavar="SECONDS", help="Time for each plugin, a day at most."
    ),
]


@app.command()
def add(  # noqa: PLR0913 - the options of the command
    network: Name,
    netns: NetnsPath,
    *,
    ifname: Ifname = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was made when it fails.")] = False,
    json: Json = False,
    timeout: Timeout = 240,
) -> None:
    """Attach NETNS to NETWORK and print the result."""
    with answering(as_json=json, root_for="pycni add"):
        from cni.cli import settings, verbs

        verbs.add(settings.from_env(os.environ, ifname), network, netns, timeout, undo=undo)


@app.command()
def check(
    network: Name, netns: NetnsPath, *, ifname: Ifname = "", json: Json = False, timeout: Timeout = 240
) -> None:
    """Check that the attachment is still as it was made."""
    with answering(as_json=json, root_for="pycni check"):
        from cni.cli import settings, verbs

        verbs.check(settings.from_env(os.environ, ifname), network, netns, timeout)


@app.command("del")
def delete(
    network: Name, netns: NetnsPath, *, ifname: Ifname = "", json: Json = False, timeout: Timeout = 240
) -> None:
    """Detach NETNS from NETWORK; doing so twice is fine."""
    with answering(as_json=json, root_for="pycni del"):
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
        bool, typer.Option("--dry-run", help="Remove nothing, only list what would go and why.")
    ] = False,
    json: Json = False,
    timeout: Timeout = 240,
) -> None:
    """Remove ALL attachments of NETWORK and remains of others."""
    with answering(as_json=json, root_for="pycni gc"):
        from cni.cli import settings, verbs

        given = settings.from_env(os.environ)
        if dry_run:
            verbs.plan_gc(given, network, timeout, dead_only=dead_only, as_json=json)
        else:
            verbs.gc(given, network, timeout, dead_only=dead_only)


@app.command()
def repair(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Only this one.")] = "",
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Repair nothing, only tell what is missing.")
    ] = False,
    json: JsonToo = False,
    timeout: Timeout = 240,
) -> None:
    """Restore what attachments miss: rules, bridges, ports."""
    with answering(as_json=json, root_for="pycni repair"):
        from cni.cli import repair, settings

        repair.run(settings.from_env(os.environ), network, timeout, dry_run=dry_run, as_json=json)


@app.command()
def status(network: Name, _netns: Unused = "", *, json: Json = False, timeout: Timeout = 240) -> None:
    """Ask the plugins of NETWORK if they are ready for an ADD."""
    with answering(as_json=json, root_for="pycni status"):
        from cni.cli import settings, verbs

        verbs.status(settings.from_env(os.environ), network, timeout)


@app.command()
def version(
    network: NamePerhaps = "", _netns: Unused = "", *, json: JsonToo = False, timeout: Timeout = 240
) -> None:
    """Print the spec versions of NETWORK's plugins, or our own."""
    with answering(as_json=json):
        from cni.cli import settings, verbs

        verbs.version(settings.from_env(os.environ), network, timeout, as_json=json)


@app.command()
def networks(*, json: JsonToo = False) -> None:
    """List the networks that are configured."""
    with answering(as_json=json):
        from cni.cli import networks, settings

        networks.run(settings.from_env(os.environ), as_json=json)


@app.command()
def show(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Only this one.")] = "",
    *,
    json: JsonToo = False,
) -> None:
    """Show networks, bridges, containers, addresses, ports."""
    with answering(as_json=json, root_for="pycni show"):
        from cni.cli import settings, show

        show.run(settings.from_env(os.environ), network, as_json=json)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin, as in firewall-log.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help='The folder "plugins" of pycni\'s source tree.')
    ] = Path("plugins"),
) -> None:
    """Write a plugin folder to start from; it needs the source tree of pycni, which has the template."""
    with answering(as_json=False):
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
    with answering(as_json=json):
        from cni.cli import schema

        schema.run(plugin)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the completion script for a shell."""
    with answering(as_json=False):
        from cni.cli.complete import SCRIPTS

        if shell not in SCRIPTS:
            raise typer.BadParameter(f'there is no completion for "{shell}", only for {", ".join(SCRIPTS)}')
        write(SCRIPTS[shell])


@app.command(hidden=True)
def complete(words: Annotated[list[str], typer.Argument()]) -> None:
    """Print what may stand in the place of the last word; the scripts of `completion` ask for it."""
    with answering(as_json=False):
        from cni.cli.complete import list_candidates

        for each in list_candidates(typer.main.get_command(app), words):
            write(f"{printable(each.word)}\t{printable(each.about)}\n")


@app.command()
def man() -> None:
    """Print the manual page pycni(1)."""
    with answering(as_json=False):
        from cni.cli.man import page

        write(page(typer.main.get_command(app)))


def main(bindir: str = "") -> NoReturn:
    """Run the command line and end the process with its exit code.

    `bindir` is where the plugins of this installation are, for when CNI_PATH names no folder.
    """
    if bindir and not os.environ.get("CNI_PATH"):
        os.environ["CNI_PATH"] = bindir
    for name in ("stdout", "stderr"):
        # Python has none where the caller has closed it.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the end
    status = run(sys.argv[1:])
    if not flush():
        # Else the interpreter exits with 120, as the last line is in the buffer still.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open until the end
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code."""
    try:
        status = app(arguments or ["--help"], prog_name="pycni", standalone_mode=False)
    except FailedError:
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except OSError as error:
        # Typer itself prints help, outside of `answering`.
        stop_writing()
        note(f"pycni: could not print: {error.strerror}")
        return FAILED
    except Exception as error:
        # What Typer raises for wrong usage has no public name.
        if not hasattr(error, "format_message"):
            raise
        note(f"pycni: {printable(error.format_message())} (pycni --help shows how)")
        return WRONG_USAGE
    # Typer itself answers an interruption, with this number and without a word.
    if status == INTERRUPTED:
        note("pycni: interrupted; what a plugin had begun may be there, del removes it")
    return status if isinstance(status, int) else 0

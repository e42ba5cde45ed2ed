"""`pycni dns query`: ask the DNS server as a container does.

Modules are imported in functions: `pycni --help` needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.output import FailedError, JsonOutput, print_json, reporting_errors, verb_group, write
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from cni.dns.names import Record

app = verb_group("Ask the DNS server for the names of containers.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name to look up.")]
Asker = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="CONTAINER",
        help="Ask as this container: its name, or the beginning of its ID; default: the host.",
    ),
]


@app.command()
def query(name: Name, *, asker: Asker = "", json: JsonOutput = False) -> None:
    """Look a name up as a container does, or as the host; print its addresses."""
    with reporting_errors(as_json=json, root_for="pycni dns query"):
        shown = _query(name, asker)
        if json:
            print_json(shown)
        else:
            write("".join(f"{each}\n" for each in shown["addresses"]))
        if not shown["addresses"] and not json:
            raise FailedError


def _query(name: str, asker: str) -> dict[str, Any]:
    """Return the server's answers for both families. Raise CniError 7 for an unknown container."""
    from cni.dns import client, records
    from cni.dns.names import normal_name
    from cni.kernel.netns import open_netns

    try:
        wanted = normal_name(name.removesuffix("."))
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIG, str(error)) from error
    listed = records.list_all()
    if not listed:
        raise CniError(
            Code.INVALID_CONFIG, "no network has names", "Add a plugin that publishes names to it."
        )
    record = _find(listed, asker) if asker else listed[0]
    server = record.settings.gateways[0]
    if asker:
        with open_netns(record.netns) as ns:
            answers = [client.ask(server, wanted, kind, ns=ns) for kind in (client.A, client.AAAA)]
    else:
        answers = [client.ask(server, wanted, kind) for kind in (client.A, client.AAAA)]
    if None in answers:
        raise CniError(Code.TRY_AGAIN, f"the DNS server at {server} does not answer", "Call pycni repair.")
    given = [each for each in answers if each is not None]
    return {
        "name": wanted,
        "server": server,
        "as": record.key.container_id if asker else "",
        "rcode": given[0].rcode,
        "addresses": [address for each in given for address in each.addresses],
    }


def _find(listed: list[Record], asker: str) -> Record:
    """Return the first attachment of a container. Raise CniError 7 unless exactly one container matches."""
    named = [each for each in listed if each.names[0] == asker.lower()]
    found = named or [each for each in listed if each.key.container_id.startswith(asker)]
    containers = dict.fromkeys(each.key.container_id for each in found)
    if len(containers) != 1:
        text = "no container" if not containers else f"{len(containers)} containers"
        raise CniError(
            Code.INVALID_CONFIG,
            f'{text} with names match "{asker}"',
            'Take the ID of one: "pycni show" lists them.',
        )
    return found[0]

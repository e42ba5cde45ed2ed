"""`pycni network`: networks, and the containers on them, with the words of Docker and podman.

Modules are imported in functions: each verb loads only what it needs, and `pycni --help` none of it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cni import stops
from cni.cli.output import FailedError, print_error, reporting_errors, verb_group, write
from cni.errors import CniError, Code, ErrorList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cli.settings import Settings
    from cni.runtime.chain import Runtime
    from cni.runtime.containers import Container as FoundContainer

app = verb_group("Create, list and remove networks, and connect containers.")

Networks = Annotated[list[str], typer.Argument(metavar="NETWORK", help="Names or IDs of networks.")]
Network = Annotated[str, typer.Argument(metavar="NETWORK", help="Name of a network.")]
Container = Annotated[
    str, typer.Argument(metavar="CONTAINER", help="Its name, ID, pod, or network namespace.")
]
Many = list[str] | None
Filters = Annotated[
    Many,
    typer.Option(
        "--filter",
        "-f",
        metavar="KEY=VALUE",
        help="Only networks that match: name, id, driver, label, dangling, created-by.",
    ),
]
Format = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help='"json", or fields as in "{{.Name}} {{.Driver}}".')
]


@app.command()
def create(  # noqa: PLR0913 - the options of the command
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new network.")],
    *,
    driver: Annotated[
        str, typer.Option("--driver", "-d", metavar="DRIVER", help="bridge, macvlan, ipvlan or none.")
    ] = "bridge",
    subnet: Annotated[
        Many, typer.Option("--subnet", metavar="CIDR", help="Subnet; default: a free one of the pools.")
    ] = None,
    gateway: Annotated[
        Many, typer.Option("--gateway", metavar="IP", help="Gateway; default: the subnet's first address.")
    ] = None,
    ip_range: Annotated[
        Many, typer.Option("--ip-range", metavar="CIDR", help="Assign addresses of this part of the subnet.")
    ] = None,
    ipv6: Annotated[bool, typer.Option("--ipv6", help="Give the network a subnet of IPv6, too.")] = False,
    internal: Annotated[bool, typer.Option("--internal", help="Give containers no way outside.")] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Keep other isolated networks from the containers.")
    ] = False,
    mtu: Annotated[
        int, typer.Option("--mtu", min=0, max=65535, metavar="BYTES", help="MTU of the links.")
    ] = 0,
    opt: Annotated[
        Many, typer.Option("--opt", "-o", metavar="KEY=VALUE", help="Option of the driver.")
    ] = None,
    dns: Annotated[
        Many, typer.Option("--dns", metavar="IP", help="Name server for the network's containers.")
    ] = None,
    disable_dns: Annotated[
        bool, typer.Option("--disable-dns", help="Do not let containers find each other by name.")
    ] = False,
    label: Annotated[Many, typer.Option("--label", metavar="KEY=VALUE", help="Label of the network.")] = None,
) -> None:
    """Write the list of a new network and print its name."""
    with reporting_errors(as_json=False, root_for="pycni network create"):
        from cni.cli.settings import from_env
        from cni.runtime.create import Asked, create

        asked = Asked(
            name,
            driver,
            split_values(subnet),
            split_values(gateway),
            split_values(ip_range),
            ipv6,
            internal,
            isolate,
            mtu,
            _pairs(opt, "--opt", needs_value=True),
            split_values(dns),
            _pairs(label, "--label", needs_value=False),
            has_names=not disable_dns,
        )
        network = create(from_env(os.environ).conf_folder, asked)
        write(f"{network.name}\n")


@app.command()
def ls(
    *,
    filters: Filters = None,
    format_: Format = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print IDs only.")] = False,
    no_trunc: Annotated[bool, typer.Option("--no-trunc", help="Print whole IDs.")] = False,
) -> None:
    """List networks."""
    with reporting_errors(as_json=False, root_for="pycni network ls"):
        from cni.cli import network_output
        from cni.cli.settings import from_env
        from cni.runtime.networks import list_networks

        settings = from_env(os.environ)
        listed, broken = list_networks(settings.conf_folder)
        chosen = network_output.choose(_runtime(settings), listed, _filters(filters))
        network_output.show_list(chosen, format_, is_quiet=quiet, is_whole=no_trunc)
        for each in broken:
            print_error(each.error)


@app.command()
def inspect(names: Networks, *, format_: Format = "") -> None:
    """Print networks with their containers as a JSON array."""
    with reporting_errors(as_json=False, root_for="pycni network inspect"):
        from cni.cli import network_output
        from cni.cli.settings import from_env
        from cni.runtime.networks import find, list_networks

        settings = from_env(os.environ)
        listed, _ = list_networks(settings.conf_folder)
        errors = ErrorList()
        found = []
        for name in names:
            try:
                found.append(find(listed, name))
            except CniError as error:
                errors.errors.append(error)
        network_output.show_details(_runtime(settings), found, format_)
        _fail(errors.errors)


@app.command()
def rm(
    names: Networks,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", "-f", help="Remove networks of other programs, too; ignore those that do not exist."
        ),
    ] = False,
) -> None:
    """Remove networks that no container uses."""
    with reporting_errors(as_json=False, root_for="pycni network rm"):
        from cni.cli.settings import from_env
        from cni.runtime.networks import find, list_networks, remove, tidy

        settings = from_env(os.environ)
        tidy(settings.conf_folder)
        errors = []
        for name in names:
            listed, _ = list_networks(settings.conf_folder)
            try:
                described = find(listed, name)
            except CniError as error:
                errors += [] if force else [error]
                continue
            try:
                remove(_runtime(settings), described, forced=force)
                write(f"{name}\n")
            except CniError as error:
                errors.append(error)
        _fail(errors)


@app.command()
def prune(
    *,
    filters: Annotated[
        Many, typer.Option("--filter", metavar="KEY=VALUE", help="Only networks that match: label, name.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Remove all networks that pycni created and no container uses."""
    with reporting_errors(as_json=False, root_for="pycni network prune"):
        from cni.cli import network_output
        from cni.cli.settings import from_env
        from cni.runtime.networks import list_networks, prune, tidy

        settings = from_env(os.environ)
        wanted = _filters(filters)
        if not force and not _is_confirmed():
            return
        tidy(settings.conf_folder)
        listed, _ = list_networks(settings.conf_folder)
        chosen = network_output.choose(_runtime(settings), listed, wanted)
        removed, errors = prune(_runtime(settings), chosen)
        if removed:
            write("Deleted Networks:\n" + "".join(f"{each}\n" for each in removed))
        _fail(errors)


@app.command()
def connect(  # noqa: PLR0913 - the options of the command
    network: Network,
    container: Container,
    *,
    ip: Annotated[
        Many, typer.Option("--ip", "--ip6", metavar="IP", help="Address, one for each family.")
    ] = None,
    alias: Annotated[
        Many, typer.Option("--alias", metavar="NAME", help="One more name of the container.")
    ] = None,
    mac: Annotated[str, typer.Option("--mac", "--mac-address", metavar="MAC", help="MAC address.")] = "",
    gw_priority: Annotated[
        int | None,
        typer.Option(
            "--gw-priority",
            min=-100,
            max=100,
            metavar="NUMBER",
            help="The network with the highest has the default route; others have 0.",
        ),
    ] = None,
) -> None:
    """Attach a running container to one more network."""
    with reporting_errors(as_json=False, root_for="pycni network connect"):
        from cni.cli.settings import from_env
        from cni.runtime.connect import Wish, connect
        from cni.runtime.networks import find, list_networks

        settings = from_env(os.environ)
        listed, _ = list_networks(settings.conf_folder)
        # A signal undoes the ADD.
        stops.listen()
        wish = Wish(split_values(ip), split_values(alias), mac, gw_priority)
        runtime = _runtime(settings)
        connect(runtime, find(listed, network).network, find_container(runtime, container), wish)


@app.command()
def disconnect(network: Network, container: Container) -> None:
    """Detach a running container from one network."""
    with reporting_errors(as_json=False, root_for="pycni network disconnect"):
        from cni.cli.settings import from_env
        from cni.runtime.connect import disconnect

        runtime = _runtime(from_env(os.environ))
        disconnect(runtime, network, find_container(runtime, container))


def find_container(runtime: Runtime, word: str) -> FoundContainer:
    """Return the running container that a word names. Raise CniError 3."""
    from cni.cli.settings import find_netns
    from cni.runtime.containers import find

    return find(runtime.cache.list_entries(), word, find_netns(word))


def _is_confirmed() -> bool:
    write(
        "WARNING! This will remove all networks that pycni created and no container uses.\n"
        "Are you sure you want to continue? [y/N] "
    )
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _fail(errors: Sequence[CniError]) -> None:
    """Report errors, each as one line. Raise FailedError if there are any."""
    for each in errors:
        print_error(each)
    if errors:
        raise FailedError


def _runtime(settings: Settings) -> Runtime:
    from cni.runtime.chain import Runtime

    return Runtime(settings.path, settings.env)


def split_values(values: Many) -> tuple[str, ...]:
    """Return the values of an option that may be repeated, or have several values with commas between."""
    return tuple(each for value in values or () for each in value.split(",") if each)


def _pairs(values: Many, option: str, *, needs_value: bool) -> dict[str, str]:
    pairs = {}
    for each in values or ():
        key, separator, value = each.partition("=")
        if not key or (needs_value and not separator):
            raise CniError(Code.INVALID_CONFIG, f'invalid value for {option}: "{each}"', "Write KEY=VALUE.")
        pairs[key] = value
    return pairs


def _filters(values: Many) -> list[tuple[str, str]]:
    filters = []
    for each in values or ():
        key, separator, value = each.partition("=")
        if not separator:
            raise typer.BadParameter(f'invalid filter "{each}": write KEY=VALUE')
        filters.append((key, value))
    return filters

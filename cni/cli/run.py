"""`pycni run`: a command of the host in a network namespace of its own, with Docker's words.

Modules are imported in the function: `pycni --help` needs none of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cni.cli.network import Many, split_values
from cni.cli.output import FailedError, print_error, reporting_errors
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.cli.settings import Settings
    from cni.runtime.connect import Wish
    from cni.runtime.etc_files import Resolver
    from cni.runtime.network import Network
    from cni.runtime.sandbox import Inside

# As Docker and podman: COMMAND was not run, for another reason than COMMAND itself.
NOT_RUN = 125
HOST, NONE = "host", "none"
HELP = """Run COMMAND of this host in a network namespace.

This is no container runtime. COMMAND is a program of this host, with the host's files, users and devices.
It has a network namespace on the networks, an /etc/resolv.conf and an /etc/hosts of its own, and a PID
namespace: when COMMAND ends, all processes that it has started are killed, and the container is detached.

The exit code is that of COMMAND, 128 and the number of the signal that has killed it, 125 if pycni fails,
126 if COMMAND cannot be executed, or 127 if there is no such program.
"""

Command = Annotated[list[str], typer.Argument(metavar="COMMAND", help="A program and its arguments.")]
OnNetworks = Annotated[
    Many,
    typer.Option(
        "--network",
        "--net",
        metavar="NETWORK",
        help="Network, also as NETWORK:ip=IP,mac=MAC,alias=NAME; host or none. May be repeated.",
    ),
]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Name; default: a random one.")]
Ports = Annotated[
    Many,
    typer.Option("--publish", "-p", metavar="PORT", help="[IP:]HOST:CONTAINER[/PROTOCOL]. May be repeated."),
]
Address = Annotated[Many, typer.Option("--ip", "--ip6", metavar="IP", help="Address, one for each family.")]
Mac = Annotated[str, typer.Option("--mac", "--mac-address", metavar="MAC", help="MAC address.")]
Alias = Annotated[Many, typer.Option("--alias", "--network-alias", metavar="NAME", help="One more name.")]
Dns = Annotated[
    Many, typer.Option("--dns", metavar="IP", help="Name server for names that are not of containers.")
]
DnsSearch = Annotated[
    Many, typer.Option("--dns-search", metavar="DOMAIN", help='Domain to search; "." for none.')
]
DnsOption = Annotated[
    Many, typer.Option("--dns-option", "--dns-opt", metavar="OPTION", help="Option of resolv.conf.")
]
AddedHost = Annotated[
    Many, typer.Option("--add-host", metavar="NAME:IP", help="Line of /etc/hosts, also with host-gateway.")
]
Hostname = Annotated[
    str, typer.Option("--hostname", metavar="NAME", help="Host name; default: that of the host.")
]
Variable = Annotated[
    Many, typer.Option("--env", "-e", metavar="NAME=VALUE", help="Variable, beside those of the caller.")
]
Workdir = Annotated[str, typer.Option("--workdir", "-w", metavar="FOLDER", help="Working directory.")]
Ignored = Annotated[
    bool, typer.Option("--rm", "-i", "-t", "--interactive", "--tty", help="Ignored: it is always so.")
]


def command(  # noqa: PLR0913 - the options of the command
    command: Command,
    *,
    network: OnNetworks = None,
    name: Name = "",
    publish: Ports = None,
    ip: Address = None,
    mac: Mac = "",
    alias: Alias = None,
    dns: Dns = None,
    dns_search: DnsSearch = None,
    dns_option: DnsOption = None,
    add_host: AddedHost = None,
    hostname: Hostname = "",
    env: Variable = None,
    workdir: Workdir = "",
    rm: Ignored = False,
) -> None:
    """Run COMMAND, see HELP."""
    del rm
    try:
        with reporting_errors(as_json=False, root_for="pycni run"):
            from cni.cli.settings import from_env
            from cni.runtime.connect import Wish
            from cni.runtime.etc_files import Resolver
            from cni.runtime.sandbox import Inside

            settings = from_env(os.environ)
            wish = Wish(split_values(ip), split_values(alias), mac, servers=split_values(dns))
            joined = _join(settings, network or [], wish, publish)
            variables = dict(os.environ) | _variables(env or [])
            has_network = HOST not in (network or [])
            inside = Inside(tuple(command), variables, workdir, has_network, hostname)
            resolver = Resolver(wish.servers, tuple(dns_search or ()), tuple(dns_option or ()))
            status = _run(settings, name, joined, inside, resolver, add_host or [])
    except FailedError as error:
        raise FailedError(NOT_RUN) from error
    if status:
        raise FailedError(status)


def _run(  # noqa: PLR0913, PLR0917 - the parts of a run
    settings: Settings,
    name: str,
    joined: Sequence[tuple[Network, Wish]],
    inside: Inside,
    resolver: Resolver,
    added_hosts: Sequence[str],
) -> int:
    """Return the exit code of COMMAND, or that of runtimes for a COMMAND that was not started."""
    from cni.cli.settings import container_id
    from cni.operations.runs import netns_path
    from cni.runtime.chain import Runtime
    from cni.runtime.run import Asked, run
    from cni.runtime.sandbox import NotStartedError

    name = name or f"run-{os.urandom(4).hex()}"
    named = tuple((network, wish._replace(name=name)) for network, wish in joined)
    own_id = container_id(netns_path(name))
    asked = Asked(name, own_id, named, inside, resolver, tuple(added_hosts))
    try:
        return run(Runtime(settings.path, settings.env), asked)
    except NotStartedError as error:
        print_error(error)
        return error.status


def _join(settings: Settings, texts: Sequence[str], wish: Wish, ports: Many) -> list[tuple[Network, Wish]]:
    """Return the networks of --network, each with its options, in order. Raise CniError 7."""
    from cni.cli.publish import parse_ports
    from cni.runtime.connect import ALIASES, LAST, PORTS
    from cni.runtime.networks import find, list_networks
    from cni.runtime.publish import show_port

    words = {HOST, NONE} & set(texts)
    if not texts or (words and len(texts) > 1):
        raise CniError(
            Code.INVALID_CONFIG,
            f"--network {words.pop()} excludes other networks" if words else "no network was given",
            'Give --network NETWORK, once or more, or "host", or "none".',
        )
    mappings = tuple(show_port(each) for text in ports or () for each in parse_ports(text, needs_inside=True))
    if words:
        _refuse_options(texts[0], wish, mappings)
        return []
    if len(texts) > 1 and (wish.addresses or wish.mac):
        raise CniError(
            Code.INVALID_CONFIG,
            "--ip and --mac do not say which of the networks they are for",
            f"Give them with the network: --network {texts[0].partition(':')[0]}:ip=IP,mac=MAC",
        )
    listed, _ = list_networks(settings.conf_folder)
    joined = []
    for number, text in enumerate(texts):
        network_name, _, options = text.partition(":")
        own = _with_options(wish._replace(aliases=(), priority=LAST if number else None), options)
        joined.append((find(listed, network_name).network, own))
    publishing = [network for network, _ in joined if PORTS in network.capabilities][:1]
    if mappings and not publishing:
        raise CniError(
            Code.INVALID_CONFIG,
            f"no network of {', '.join(network.name for network, _ in joined)} publishes ports",
            f'Add a plugin with the capability "{PORTS}" to one of them.',
        )
    # A network without names refuses an alias.
    naming = [network for network, _ in joined if ALIASES in network.capabilities] or [joined[0][0]]
    return [
        (
            network,
            own._replace(
                ports=mappings if network in publishing else (),
                aliases=(*own.aliases, *(wish.aliases if network in naming else ())),
            ),
        )
        for network, own in joined
    ]


def _refuse_options(word: str, wish: Wish, mappings: Sequence[object]) -> None:
    given = {"--publish": mappings, "--ip": wish.addresses, "--mac": wish.mac, "--alias": wish.aliases}
    for option, value in given.items():
        if value:
            raise CniError(
                Code.INVALID_CONFIG,
                f"{option} needs a network: with --network {word} nothing is attached",
                f"Leave out {option}, or give --network NETWORK.",
            )


def _with_options(wish: Wish, text: str) -> Wish:
    """Add the options of one network, podman's "ip=IP,mac=MAC,alias=NAME". Raise CniError 7."""
    for each in filter(None, text.split(",")):
        key, _, value = each.partition("=")
        if key in {"ip", "ip6"} and value:
            wish = wish._replace(addresses=(*wish.addresses, value))
        elif key == "mac" and value:
            wish = wish._replace(mac=value)
        elif key == "alias" and value:
            wish = wish._replace(aliases=(*wish.aliases, value))
        else:
            raise CniError(
                Code.INVALID_CONFIG,
                f'invalid value for --network: "{each}" is no option of a network',
                "Write NETWORK:ip=IP,mac=MAC,alias=NAME.",
            )
    return wish


def _variables(texts: Sequence[str]) -> dict[str, str]:
    """Return the variables of --env. A name without a value is the caller's variable, which stays."""
    pairs = {}
    for each in texts:
        name, separator, value = each.partition("=")
        if not name:
            raise CniError(Code.INVALID_CONFIG, f'invalid value for --env: "{each}"', "Write NAME=VALUE.")
        if separator:
            pairs[name] = value
    return pairs

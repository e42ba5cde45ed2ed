"""`pycni publish` and `pycni unpublish`: ports of running containers, in Docker's notation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni import stops
from cni.addresses import parse_ip
from cni.cli.network import find_container
from cni.errors import CniError, Code
from cni.runtime import publish
from cni.runtime.chain import Runtime
from cni.runtime.publish import Port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.cli.settings import Settings

# [IP:]HOST[:CONTAINER][/PROTOCOL]; an IPv6 address is in brackets.
_PORT = re.compile(
    r"((?:\[(?P<v6>[^\]]*)\]|(?P<v4>[\d.]*\.[\d.]*)):)?(?P<host>\d+)(-(?P<host_end>\d+))?"
    r"(:(?P<inside>\d+)(-(?P<inside_end>\d+))?)?(/(?P<protocol>tcp|udp|sctp))?"
)
_LAST_PORT = 65535


def run(  # noqa: PLR0913 - the options of the command
    settings: Settings,
    container: str,
    texts: Sequence[str],
    *,
    network: str,
    clients: Sequence[str],
    is_withdrawn: bool,
) -> None:
    """Publish ports of a running container, or withdraw them."""
    ports = [port for text in texts for port in parse_ports(text, needs_inside=not is_withdrawn)]
    # A signal undoes the change.
    stops.listen()
    runtime = Runtime(settings.path, settings.env)
    found = find_container(runtime, container)
    if is_withdrawn:
        publish.unpublish(runtime, found, network, ports)
    else:
        publish.publish(runtime, found, network, ports, clients)


def parse_ports(text: str, *, needs_inside: bool) -> Iterable[Port]:
    """Return the ports of "8080:80", "127.0.0.1:8080:80/udp" or "8080-8082:80-82". Raise CniError 7."""
    match = _PORT.fullmatch(text.lower())
    if match is None or (needs_inside and match["inside"] is None):
        raise _wrong(text, "it is [IP:]HOST:CONTAINER[/PROTOCOL]")
    host = _range(text, match["host"], match["host_end"])
    inside = _range(text, match["inside"], match["inside_end"]) if match["inside"] else [0] * len(host)
    if len(host) != len(inside):
        raise _wrong(text, "both ranges must have the same length")
    address = match["v6"] or match["v4"] or ""
    try:
        host_ip = str(parse_ip(address)) if address else ""
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    return [Port(*pair, match["protocol"] or "tcp", host_ip) for pair in zip(host, inside, strict=True)]


def _range(text: str, first: str, last: str | None) -> Sequence[int]:
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] < 1 or found[-1] > _LAST_PORT:
        raise _wrong(text, f"a port is 1 to {_LAST_PORT}")
    return found


def _wrong(text: str, reason: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f'invalid port "{text}": {reason}', "Example: 8080:80/udp.")

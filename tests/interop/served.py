"""Questions of the tests of container runtimes: pages of containers, and how many calls were served warm."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from cni.warm import control
from plugin_table import ROOT

if TYPE_CHECKING:
    from cni.testing import Host

_STARTED_S = 30


def served(host: Host) -> int:
    """Count the calls that the warm server of the installed suite has served."""
    servers = host.call(control.find)
    assert {server.build for server in servers} <= {(ROOT / "dist/bundle/build").read_text()}
    return sum(int(host.call(control.status, server)["requests"]) for server in servers)


def fetch(
    host: Host, address: str, port: int = 8080, *, from_outside: bool = False, timeout_s: float = 10
) -> str:
    """Ask for the page at an address, from the host or from its peer outside."""
    return (host.outside.sandbox if from_outside else host).call(read_page, address, port, timeout_s)


def wait_for_page(host: Host, address: str, port: int = 80, *, from_outside: bool = False) -> str:
    """Return the page at an address as soon as the server in the container listens."""
    deadline = time.monotonic() + _STARTED_S
    while True:
        try:
            return fetch(host, address, port, from_outside=from_outside)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def read_page(address: str, port: int, timeout_s: float) -> str:
    """Return the page at an address, asked for in this process's namespace."""
    connection = HTTPConnection(address, port, timeout=timeout_s)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()

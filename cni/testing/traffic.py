"""Real packets: small servers that report their peer, and a client for them."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, NamedTuple, Self

from cni.testing import agent
from cni.testing.agent import Child

if TYPE_CHECKING:
    from cni.testing.place import Place

_READY = "ready "
# A server that has accepted a connection answers, however busy the machine is.
_ANSWER_S = 30
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Seen(NamedTuple):
    """The peer as the server sees it, after every NAT on the way."""

    address: str
    port: int


class Server:
    """A server in a child process. It runs until `close` or the end of the context."""

    def __init__(self, place: Place, port: int, protocol: str = "tcp", address: str = "") -> None:
        reader, writer = os.pipe()
        agent.own().start(agent.pack(_serve_in_child, place, port, protocol, address), [writer])
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        if not said.startswith(_READY):
            raise OSError(f"could not serve {protocol} port {port}: {said}")
        self._child: Child | None = Child(int(said.removeprefix(_READY)))

    def close(self) -> None:
        """End the server."""
        if self._child:
            self._child.end()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve_in_child(fds: list[int], place: Place, port: int, protocol: str, address: str) -> None:
    [writer] = fds
    try:
        place.enter()
        server = _listen(address, port, protocol)
        os.write(writer, f"{_READY}{os.getpid()}".encode())
        os.close(writer)
        while True:
            _answer_one(server, protocol)
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        os.write(writer, str(error).encode())
    finally:
        os._exit(1)


def _listen(address: str, port: int, protocol: str) -> socket.socket:
    family = socket.AF_INET if "." in address else socket.AF_INET6
    server = socket.socket(family, KINDS[protocol])
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address)))
    server.bind((address or "::", port))
    if protocol == "tcp":
        server.listen(64)
    return server


def _answer_one(server: socket.socket, protocol: str) -> None:
    # The server goes on after a client has gone, and after an ICMP error on a UDP socket.
    try:
        if protocol == "udp":
            _, peer = server.recvfrom(65536)
            server.sendto(_describe(peer), peer)
        else:
            connection, peer = server.accept()
            with connection:
                connection.sendall(_describe(peer))
    except OSError:
        return


def _describe(peer: tuple[str, int]) -> bytes:
    address = ipaddress.ip_address(peer[0].split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return f"{mapped or address} {peer[1]}".encode()


def ask(address: str, port: int, protocol: str = "tcp", source: str = "", timeout_s: float = 10) -> Seen:
    """Send a request to a server of this module, from the address `source`. Raise OSError if none answers.

    `timeout_s` limits the wait for a connection, for UDP the wait for the answer.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[protocol]) as client:
        client.settimeout(timeout_s)
        if source:
            client.bind((source, 0))
        client.connect((address, port))
        if protocol == "udp":
            client.send(b"?")
        else:
            client.settimeout(_ANSWER_S)
        said = client.recv(1000).decode()
    if not said:
        raise ConnectionError(f"{address} port {port} closed the connection without an answer")
    seen, seen_port = said.split()
    return Seen(seen, int(seen_port))

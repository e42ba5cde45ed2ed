"""The keys of portmap's configuration; pure."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cni.addresses import parse_exact_network, parse_ip
from cni.conf import Bool, Int, Model, NetConf, Str, Within, parsed_by
from cni.result import IpAddress, IpNetwork

BACKENDS = ("iptables", "nftables")
PROTOCOLS = ("tcp", "udp", "sctp")
DEFAULT_MARK_BIT = 13

_LAST_PORT = 65535
_LAST_BIT = 31
# What iptables takes: 28 characters, and nothing that it would read as something else.
_CHAIN = re.compile(r"[^\s!\-\"'\\][^\s\"'\\]{0,27}")


def _refuse(text: str) -> ValueError:
    """Return the error. Its text begins as that of the Go plugin."""
    return ValueError(f"failed to parse config: {text}")


def _require_one(clients: tuple[IpNetwork, ...] | None) -> tuple[IpNetwork, ...] | None:
    if clients is not None and not clients:
        raise _refuse("allowFrom is empty: no client could connect, leave the key out to let all connect")
    return clients


def _parse_host_ip(text: str) -> IpAddress | None:
    try:
        return parse_ip(text) if text else None
    except ValueError:
        raise _refuse(f'Invalid host IP address: "{text}", it is an IPv4 or IPv6 address') from None


def _parse_client(text: str) -> IpNetwork:
    try:
        return parse_exact_network(text)
    except ValueError as error:
        raise _refuse(f'Invalid entry "{text}" in allowFrom: {error}') from None


Clients = Annotated[tuple[Annotated[IpNetwork, parsed_by(_parse_client)], ...], AfterValidator(_require_one)]
HostIp = Annotated[IpAddress | None, parsed_by(_parse_host_ip)]
# The kernel takes a time that grows with the square of the number: 5000 take a second or two.
_MOST_CLIENTS = 5000
# Ports that a validator checks, as the error begins with the Go plugin's text.
_Port = Annotated[Int, Within(1, _LAST_PORT)]


class PortMappingConf(Model):
    """A port to publish.

    Attributes:
        host_port: Port of the host.
        container_port: Port of the container.
        protocol: `"tcp"`, `"udp"` or `"sctp"`, in any case.
        host_ip: Publish on this address of the host only. `"0.0.0.0"` and `"::"` are all addresses of a
            family, `""` and no key are all of both.
        allow_from: Networks and addresses of the clients that reach the port, of both families. Instead of
            `allowFrom` of the configuration.
    """

    host_port: _Port = 0
    container_port: _Port = 0
    protocol: Str = ""
    host_ip: HostIp = Field(default=None, alias="hostIP")
    allow_from: Clients | None = None

    @field_validator("protocol")
    @classmethod
    def _lower(cls, protocol: str) -> str:
        return protocol.lower()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for port, what in ((self.container_port, "container"), (self.host_port, "host")):
            if not 0 < port <= _LAST_PORT:
                raise _refuse(f"Invalid {what} port number: {port}, it is 1 to {_LAST_PORT}")
        if self.protocol not in PROTOCOLS:
            raise _refuse(
                f'Invalid protocol "{self.protocol}" of host port {self.host_port}, '
                f"it is one of {', '.join(PROTOCOLS)}"
            )
        return self


class RuntimeConf(Model):
    """Keys that the runtime adds for the capability `portMappings`.

    Attributes:
        port_mappings: The ports to publish.
    """

    port_mappings: tuple[PortMappingConf, ...] = ()


class PortmapConf(NetConf):
    """The configuration of portmap.

    Attributes:
        backend: `"iptables"` writes the rules that the Go plugin writes. `"nftables"` uses tables of its own,
            where a packet costs one look-up however many ports are published. The default is iptables where
            it works, else nftables. Options that only one backend has choose that backend.
        snat: Let the container reach its own published ports, and the host reach them through 127.0.0.1. Both
            need the source address of such packets to be the host's.
        masq_all: Replace the source address of every client by the host's, not only of those.
        mark_masq_bit: Bit of the packet mark that asks for masquerading. iptables only. The default is 13.
        external_set_mark_chain: Chain of another program that sets the mark, such as `KUBE-MARK-MASQ`.
            iptables only. Not with `markMasqBit`.
        conditions_v4: More matches for IPv4 packets, in the words of the backend: `["-s", "192.0.2.0/24"]` or
            `["ip", "saddr", "192.0.2.0/24"]`.
        conditions_v6: More matches for IPv6 packets, in the words of the backend.
        allow_from: Networks and addresses of the clients that reach published ports, unless a port has a list
            of its own: `["192.0.2.0/24", "2001:db8::7"]`. A family without an entry is closed. The default
            is all clients. The lists of all ports together have at most 5000 entries.
        runtime_config: What the runtime adds for capabilities.
    """

    delete_reads = frozenset()

    backend: Str = ""
    snat: Bool = True
    masq_all: Bool = False
    mark_masq_bit: Annotated[Int, Within(0, _LAST_BIT)] | None = None
    external_set_mark_chain: Str | None = None
    conditions_v4: tuple[Str, ...] = Field(default=(), alias="conditionsV4")
    conditions_v6: tuple[Str, ...] = Field(default=(), alias="conditionsV6")
    allow_from: Clients | None = None
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)

    @property
    def mark_bit(self) -> int:
        """The bit of the packet mark that asks for masquerading."""
        return DEFAULT_MARK_BIT if self.mark_masq_bit is None else self.mark_masq_bit

    @property
    def needed_backend(self) -> str:
        """The backend asked for by name or by options that it alone understands; "" leaves it open."""
        return self.backend or next(iter(self._options()), "")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.backend and self.backend not in BACKENDS:
            raise _refuse(f'unrecognized backend "{self.backend}", it is one of {", ".join(BACKENDS)}')
        self._check_marking()
        self._check_clients()
        for token in (*self.conditions_v4, *self.conditions_v6):
            if not token or not token.isprintable():
                raise _refuse(f"conditions are printable words, {token!a} is not")
        needed = self.needed_backend
        for other, keys in self._options().items():
            if needed != other:
                raise _refuse(
                    f"{needed} backend was requested but configuration contains "
                    f"{other}-specific options [{' '.join(keys)}]"
                )
        return self

    def _check_clients(self) -> None:
        lists = [each.allow_from or self.allow_from or () for each in self.runtime_config.port_mappings]
        if (number := sum(map(len, lists))) > _MOST_CLIENTS:
            raise _refuse(
                f"allowFrom has {number} entries for all ports together, at most {_MOST_CLIENTS} are allowed"
            )

    def _check_marking(self) -> None:
        chain = self.external_set_mark_chain
        if self.mark_masq_bit is not None and chain is not None:
            raise _refuse("Cannot specify externalSetMarkChain and markMasqBit")
        if not 0 <= self.mark_bit <= _LAST_BIT:
            raise _refuse(f"MasqMarkBit must be between 0 and {_LAST_BIT}, it is {self.mark_bit}")
        if chain is not None and not _CHAIN.fullmatch(chain):
            raise _refuse(f'externalSetMarkChain "{chain}" cannot be the name of a chain')

    def _options(self) -> dict[str, list[str]]:
        """List by backend the keys that it alone understands; conditions tell by how they begin."""
        found: dict[str, list[str]] = {}
        if self.external_set_mark_chain is not None:
            found["iptables"] = ["externalSetMarkChain"]
        for key, tokens in (("conditionsV4", self.conditions_v4), ("conditionsV6", self.conditions_v6)):
            if tokens and tokens[0]:
                backend = "iptables" if tokens[0][0] in "-!" else "nftables"
                found.setdefault(backend, []).append(key)
        return found

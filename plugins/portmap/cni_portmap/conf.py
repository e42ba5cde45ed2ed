"""The keys of portmap's configuration; pure."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cni.addresses import parse_ip
from cni.conf import Bool, Int, Model, NetConf, Str
from cni.result import IpAddress

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


def _parse_host_ip(value: object) -> object:
    if not isinstance(value, str):
        raise _refuse(f"Invalid host IP address: {value!r} is not a text")
    try:
        return parse_ip(value) if value else None
    except ValueError:
        raise _refuse(f'Invalid host IP address: "{value}", it is an IPv4 or IPv6 address') from None


HostIp = Annotated[IpAddress | None, BeforeValidator(_parse_host_ip)]


class PortMappingConf(Model):
    """A port to publish. `hostIP` "" is every address of the host; "0.0.0.0" and "::" are all of a family."""

    host_port: Int = 0
    container_port: Int = 0
    protocol: Str = ""
    host_ip: Annotated[IpAddress | None, BeforeValidator(_parse_host_ip)] = Field(
        default=None, alias="hostIP"
    )

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
    """What the runtime hands over for the capability `portMappings`."""

    port_mappings: tuple[PortMappingConf, ...] = ()


class PortmapConf(NetConf):
    """The configuration of portmap; the plugin's README explains the keys."""

    backend: Str = ""
    snat: Bool = True
    masq_all: Bool = False
    mark_masq_bit: Int | None = None
    external_set_mark_chain: Str | None = None
    conditions_v4: tuple[Str, ...] = Field(default=(), alias="conditionsV4")
    conditions_v6: tuple[Str, ...] = Field(default=(), alias="conditionsV6")
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
        for token in (*self.conditions_v4, *self.conditions_v6):
            if not token or not token.isprintable():
                raise _refuse(f"conditions are printable words, {token!a} is not")
        for other, keys in self._options().items():
            if self.needed_backend != other:
                raise _refuse(
                    f"{self.needed_backend} backend was requested but configuration contains "
                    f"{other}-specific options [{' '.join(keys)}]"
                )
        return self

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
